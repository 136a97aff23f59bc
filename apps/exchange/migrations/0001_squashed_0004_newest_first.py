import apps.core.clock
import django.db.models.deletion
import uuid
from pathlib import Path
from django.db import migrations, models
from apps.core.tables import CreateModels

HERE = Path(__file__).parent


class Migration(migrations.Migration):

    replaces = [
        ('exchange', '0001_initial'),
        ('exchange', '0002_append_only'),
        ('exchange', '0003_volume'),
        ('exchange', '0004_newest_first'),
    ]

    initial = True

    dependencies = [
        ('accounts', '0001_squashed_0005_key_spend_limit'),
        ('wallets', '0001_squashed_0009_prepaid'),
    ]

    operations = [
        CreateModels([
            migrations.CreateModel(
                name='Pool',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('base', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='pool', to='wallets.asset')),
                    ('quote', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='wallets.asset')),
                    ('shares', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='pool_of_shares', to='wallets.asset')),
                    ('party', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='pool', to='accounts.party')),
                    ('base_micro', models.BigIntegerField(default=0)),
                    ('quote_micro', models.BigIntegerField(default=0)),
                    ('shares_micro', models.BigIntegerField(default=0)),
                    ('area', models.DecimalField(decimal_places=0, default=0, max_digits=60)),
                    ('at_ms', models.BigIntegerField(default=0)),
                    ('volume_micro', models.DecimalField(decimal_places=0, default=0, max_digits=40)),
                    ('events_count', models.BigIntegerField(default=0)),
                ],
                options={
                    'indexes': [models.Index(fields=['-created_at', '-id'], name='exchange_pool_newest')],
                    'constraints': [models.CheckConstraint(condition=models.Q(models.Q(('base_micro', 0), ('quote_micro', 0), ('shares_micro', 0)), models.Q(('base_micro__gt', 0), ('quote_micro__gt', 0), ('shares_micro__gt', 0)), _connector='OR'), name='exchange_pool_full_or_empty')],
                },
            ),
            migrations.CreateModel(
                name='PoolEvent',
                fields=[
                    ('id', models.UUIDField(primary_key=True, serialize=False)),
                    ('pool', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='events', to='exchange.pool')),
                    ('number', models.BigIntegerField()),
                    ('kind', models.CharField(choices=[('swap', 'Swap'), ('add', 'Add'), ('remove', 'Remove')], max_length=6)),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.party')),
                    ('base_micro', models.BigIntegerField()),
                    ('quote_micro', models.BigIntegerField()),
                    ('shares_micro', models.BigIntegerField(default=0)),
                    ('base_after_micro', models.BigIntegerField()),
                    ('quote_after_micro', models.BigIntegerField()),
                    ('area', models.DecimalField(decimal_places=0, max_digits=60)),
                    ('volume_micro', models.DecimalField(decimal_places=0, default=0, max_digits=40)),
                    ('at_ms', models.BigIntegerField()),
                ],
                options={
                    'indexes': [models.Index(fields=['pool', 'at_ms', 'number'], name='exchange_event_at')],
                    'constraints': [models.UniqueConstraint(fields=('pool', 'number'), name='exchange_event_number'), models.CheckConstraint(condition=models.Q(('base_after_micro__gt', 0), ('quote_after_micro__gt', 0)), name='exchange_event_leaves_a_pool')],
                },
            ),
            migrations.CreateModel(
                name='Vault',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('asset', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='vault', to='wallets.asset')),
                    ('shares', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='vault_of_shares', to='wallets.asset')),
                    ('party', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='vault', to='accounts.party')),
                    ('assets_micro', models.BigIntegerField(default=0)),
                    ('shares_micro', models.BigIntegerField(default=0)),
                    ('principal_micro', models.BigIntegerField(default=0)),
                ],
                options={
                    'indexes': [models.Index(fields=['-created_at', '-id'], name='exchange_vault_newest')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('assets_micro__gte', models.F('principal_micro')), ('principal_micro__gte', 0)), name='exchange_vault_covers_principal'), models.CheckConstraint(condition=models.Q(('shares_micro__gte', 0)), name='exchange_vault_shares_not_neg')],
                },
            ),
            migrations.CreateModel(
                name='VaultPosition',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('vault', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='positions', to='exchange.vault')),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='positions', to='accounts.party')),
                    ('principal_micro', models.BigIntegerField(default=0)),
                    ('shares_micro', models.BigIntegerField(default=0)),
                    ('locked_until_ms', models.BigIntegerField(default=0)),
                ],
                options={
                    'constraints': [models.UniqueConstraint(fields=('vault', 'party'), name='exchange_position_once'), models.CheckConstraint(condition=models.Q(('principal_micro__gte', 0), ('shares_micro__gte', 0)), name='exchange_position_not_neg')],
                },
            ),
            migrations.CreateModel(
                name='Unstaking',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('vault', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='unstakings', to='exchange.vault')),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='unstakings', to='accounts.party')),
                    ('amount_micro', models.BigIntegerField()),
                    ('ready_at', models.DateTimeField()),
                    ('released_at', models.DateTimeField(null=True)),
                ],
                options={
                    'indexes': [models.Index(condition=models.Q(('released_at', None)), fields=['ready_at'], name='exchange_unstaking_due')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('amount_micro__gte', 0)), name='exchange_unstaking_not_neg')],
                },
            ),
        ]),
        migrations.RunSQL((HERE / "append_only.sql").read_text()),
    ]
