import apps.core.clock
import django.db.models.deletion
import django.db.models.expressions
import django.db.models.fields.json
import django.db.models.functions.comparison
import uuid
from pathlib import Path
from django.db import migrations, models
from apps.core.tables import CreateModels

HERE = Path(__file__).parent


class Migration(migrations.Migration):

    replaces = [
        ('subdaos', '0001_initial'),
        ('subdaos', '0002_search'),
        ('subdaos', '0003_scoring'),
        ('subdaos', '0004_newest_first'),
        ('subdaos', '0005_points_are_append_only'),
        ('subdaos', '0006_emission'),
        ('subdaos', '0007_schedules'),
        ('subdaos', '0008_unlocks'),
        ('subdaos', '0009_facets'),
        ('subdaos', '0010_training'),
        ('subdaos', '0011_tiers'),
        ('subdaos', '0012_plans'),
        ('subdaos', '0013_divided_epochs'),
    ]

    initial = True

    dependencies = [
        ('accounts', '0001_squashed_0005_key_spend_limit'),
        ('wallets', '0001_squashed_0009_prepaid'),
    ]

    operations = [
        CreateModels([
            migrations.CreateModel(
                name='Dao',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('party', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='dao', to='accounts.party')),
                    ('slug', models.SlugField(max_length=60, unique=True)),
                    ('name', models.CharField(max_length=160)),
                    ('kind', models.CharField(choices=[('super', 'Super'), ('sub', 'Sub')], max_length=5)),
                    ('asset', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='dao', to='wallets.asset')),
                    ('params', models.JSONField(default=dict)),
                    ('domain', models.GeneratedField(db_persist=True, expression=django.db.models.functions.comparison.Coalesce(django.db.models.fields.json.KeyTextTransform('domain', 'params'), models.Value('other', models.TextField())), output_field=models.TextField())),
                    ('licence', models.GeneratedField(db_persist=True, expression=django.db.models.functions.comparison.Coalesce(django.db.models.fields.json.KeyTextTransform('licence', 'params'), models.Value('any-use', models.TextField())), output_field=models.TextField())),
                    ('model_class', models.GeneratedField(db_persist=True, expression=django.db.models.functions.comparison.Coalesce(django.db.models.fields.json.KeyTextTransform('model_class', 'params'), models.Value('', models.TextField())), output_field=models.TextField())),
                    ('standard', models.GeneratedField(db_persist=True, expression=django.db.models.functions.comparison.Coalesce(django.db.models.fields.json.KeyTextTransform('standard', django.db.models.fields.json.KeyTextTransform('schema', 'params')), models.Value('', models.TextField())), output_field=models.TextField())),
                    ('row_price_micro', models.GeneratedField(db_persist=True, expression=django.db.models.functions.comparison.Coalesce(django.db.models.functions.comparison.Cast(django.db.models.fields.json.KeyTextTransform('price_micro', 'params'), models.BigIntegerField()), models.Value(0)), output_field=models.BigIntegerField())),
                    ('rfm_ref', models.UUIDField(blank=True, null=True, unique=True)),
                    ('founded_at', models.DateTimeField()),
                ],
                options={
                    'indexes': [models.Index(fields=['-founded_at', '-id'], name='subdaos_newest')],
                    'constraints': [models.UniqueConstraint(condition=models.Q(('kind', 'super')), fields=('kind',), name='subdaos_one_superdao'), models.CheckConstraint(condition=models.Q(models.Q(('asset__isnull', True), ('kind', 'super')), models.Q(('asset__isnull', False), ('kind', 'sub'), ('rfm_ref__isnull', False)), _connector='OR'), name='subdaos_sub_has_asset_and_rfm')],
                },
            ),
            migrations.CreateModel(
                name='SbgtCheckpoint',
                fields=[
                    ('id', models.BigAutoField(primary_key=True, serialize=False)),
                    ('dao', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='sbgt', to='subdaos.dao')),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.party')),
                    ('at', models.DateTimeField()),
                    ('points_micro', models.BigIntegerField()),
                    ('reason', models.CharField(max_length=40)),
                    ('ref', models.CharField(blank=True, max_length=64)),
                ],
                options={
                    'indexes': [models.Index(fields=['dao', 'party', '-at', '-id'], name='subdaos_sbgt_latest')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('points_micro__gte', 0)), name='subdaos_points_not_neg')],
                },
            ),
            migrations.CreateModel(
                name='Epoch',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('dao', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='epochs', to='subdaos.dao')),
                    ('number', models.PositiveIntegerField()),
                    ('starts_at', models.DateTimeField()),
                    ('ends_at', models.DateTimeField()),
                    ('closed_at', models.DateTimeField(blank=True, null=True)),
                    ('revenue_micro', models.BigIntegerField(default=0)),
                    ('settlement', models.JSONField(blank=True, null=True)),
                ],
                options={
                    'indexes': [models.Index(fields=['ends_at'], name='subdaos_epoch_due'), models.Index(condition=models.Q(('settlement__isnull', False)), fields=['-ends_at'], name='subdaos_epoch_divided')],
                    'constraints': [models.UniqueConstraint(fields=('dao', 'number'), name='subdaos_epoch_number'), models.UniqueConstraint(condition=models.Q(('closed_at__isnull', True)), fields=('dao',), name='subdaos_one_open_epoch'), models.CheckConstraint(condition=models.Q(('ends_at__gt', models.F('starts_at'))), name='subdaos_epoch_has_length'), models.CheckConstraint(condition=models.Q(('revenue_micro__gte', 0)), name='subdaos_epoch_revenue_not_neg')],
                },
            ),
            migrations.CreateModel(
                name='Sponsor',
                fields=[
                    ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                    ('dao', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='sponsors', to='subdaos.dao')),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.party')),
                    ('pledged_micro', models.BigIntegerField()),
                    ('taken_micro', models.BigIntegerField(default=0)),
                ],
                options={
                    'constraints': [models.UniqueConstraint(fields=('dao', 'party'), name='subdaos_sponsor_once'), models.CheckConstraint(condition=models.Q(('pledged_micro__gt', 0), ('taken_micro__gte', 0)), name='subdaos_sponsor_amounts')],
                },
            ),
            migrations.CreateModel(
                name='Emission',
                fields=[
                    ('epoch', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='emission', serialize=False, to='subdaos.epoch')),
                    ('dao', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='emissions', to='subdaos.dao')),
                    ('at', models.DateTimeField()),
                    ('reserve_micro', models.BigIntegerField()),
                    ('rate_bps', models.PositiveIntegerField()),
                    ('contributors_micro', models.BigIntegerField()),
                    ('sponsors_micro', models.BigIntegerField()),
                    ('treasury_micro', models.BigIntegerField()),
                ],
                options={
                    'indexes': [models.Index(fields=['dao', '-at'], name='subdaos_emissions')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('contributors_micro__gte', 0), ('sponsors_micro__gte', 0), ('treasury_micro__gte', 0), ('reserve_micro__gte', django.db.models.expressions.CombinedExpression(django.db.models.expressions.CombinedExpression(models.F('contributors_micro'), '+', models.F('sponsors_micro')), '+', models.F('treasury_micro')))), name='subdaos_emission_within_reserve')],
                },
            ),
            migrations.CreateModel(
                name='Conversion',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('emission', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='conversions', to='subdaos.emission')),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.party')),
                    ('asked_min_micro', models.BigIntegerField()),
                    ('points_micro', models.BigIntegerField()),
                    ('tokens_micro', models.BigIntegerField()),
                ],
                options={
                    'indexes': [models.Index(fields=['emission', 'party'], name='subdaos_conversions')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('points_micro__gt', 0), ('tokens_micro__gt', 0)), name='subdaos_conversion_amounts')],
                },
            ),
        ]),
        migrations.RunSQL((HERE / "append_only.sql").read_text()),
        migrations.RunSQL((HERE / "search.sql").read_text()),
    ]
