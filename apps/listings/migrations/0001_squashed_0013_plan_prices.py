import apps.core.clock
import django.db.models.deletion
import uuid
from pathlib import Path
from django.db import migrations, models
from apps.core.tables import CreateModels

HERE = Path(__file__).parent


class Migration(migrations.Migration):

    replaces = [
        ('listings', '0001_initial'),
        ('listings', '0002_initial'),
        ('listings', '0003_newest_first'),
        ('listings', '0004_entitlements'),
        ('listings', '0005_query_api_key'),
        ('listings', '0006_mandates'),
        ('listings', '0007_use'),
        ('listings', '0008_room_for_amounts'),
        ('listings', '0009_claim_and_settle'),
        ('listings', '0010_hold'),
        ('listings', '0011_shelf'),
        ('listings', '0012_plans'),
        ('listings', '0013_plan_prices'),
    ]

    initial = True

    dependencies = [
        ('accounts', '0001_squashed_0005_key_spend_limit'),
        ('compute', '0001_squashed_0008_answered'),
        ('core', '0001_squashed_0002_answers_as_text'),
        ('notify', '0001_webhooks'),
        ('subdaos', '0001_squashed_0013_divided_epochs'),
        ('training', '0001_squashed_0011_warm_start'),
        ('wallets', '0001_squashed_0009_prepaid'),
    ]

    operations = [
        CreateModels([
            migrations.CreateModel(
                name='Listing',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('dao', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='listing', to='subdaos.dao')),
                    ('slug', models.SlugField(max_length=60, unique=True)),
                    ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='listings', to='training.modelversion')),
                    ('status', models.CharField(choices=[('open', 'Open'), ('closed', 'Closed')], default='open', max_length=6)),
                    ('opened_at', models.DateTimeField()),
                    ('answers_recent', models.PositiveIntegerField(default=0)),
                    ('domain', models.TextField(default='', editable=False)),
                    ('licence', models.TextField(default='', editable=False)),
                    ('model_class', models.TextField(default='', editable=False)),
                    ('standard', models.TextField(default='', editable=False)),
                    ('row_price_micro', models.BigIntegerField(default=0, editable=False)),
                    ('lead_milli', models.IntegerField(default=-1000000, editable=False)),
                ],
                options={
                    'indexes': [models.Index(fields=['-opened_at', '-id'], name='listings_newest'), models.Index(fields=['status', '-opened_at', '-id'], name='listings_newest_open'), models.Index(fields=['-created_at', '-id'], name='listings_made'), models.Index(fields=['-answers_recent', '-id'], name='listings_most_used'), models.Index(fields=['row_price_micro', 'id'], name='listings_cheapest'), models.Index(fields=['-lead_milli', '-id'], name='listings_best')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('status__in', ['open', 'closed'])), name='listings_known_status')],
                },
            ),
            migrations.CreateModel(
                name='Mandate',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='mandates', to='accounts.party')),
                    ('public_key', models.CharField(max_length=64)),
                    ('listing', models.CharField(max_length=60)),
                    ('limit_micro', models.BigIntegerField()),
                    ('until', models.DateTimeField()),
                    ('api_key', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='mandates', to='accounts.apikey')),
                    ('ended_at', models.DateTimeField(null=True)),
                ],
                options={
                    'indexes': [models.Index(fields=['party', 'until'], name='listings_mandates')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('limit_micro__gt', 0)), name='listings_mandate_limit_positive')],
                },
            ),
            migrations.CreateModel(
                name='Subscription',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('buyer', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='subscriptions', to='accounts.party')),
                    ('listing', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='subscriptions', to='listings.listing')),
                    ('account', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='wallets.account')),
                    ('plan', models.CharField(max_length=20)),
                    ('rows', models.BigIntegerField()),
                    ('row_micro', models.BigIntegerField()),
                    ('price_micro', models.BigIntegerField()),
                    ('earlier', models.JSONField(default=list)),
                    ('began_at', models.DateTimeField()),
                    ('starts_at', models.DateTimeField()),
                    ('ends_at', models.DateTimeField()),
                    ('ended_at', models.DateTimeField(null=True)),
                ],
                options={
                    'indexes': [models.Index(condition=models.Q(('ended_at', None)), fields=['ends_at'], name='listings_plan_runs'), models.Index(fields=['buyer', '-began_at', '-id'], name='listings_plan_newest')],
                    'constraints': [models.UniqueConstraint(condition=models.Q(('ended_at', None)), fields=('buyer', 'listing'), name='listings_one_plan_at_a_time'), models.CheckConstraint(condition=models.Q(('ends_at__gt', models.F('starts_at')), ('row_micro__gt', 0), ('rows__gt', 0)), name='listings_plan_is_something')],
                },
            ),
            migrations.CreateModel(
                name='Query',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('buyer', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='queries', to='accounts.party')),
                    ('listing', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='queries', to='listings.listing')),
                    ('version', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='queries', to='training.modelversion')),
                    ('epoch', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='queries', to='subdaos.epoch')),
                    ('job', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='query', to='compute.job')),
                    ('hold', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='query', to='wallets.transfer')),
                    ('mandate', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='queries', to='listings.mandate')),
                    ('api_key', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='queries', to='accounts.apikey')),
                    ('subscription', models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='queries', to='listings.subscription')),
                    ('rows', models.PositiveIntegerField()),
                    ('price_micro', models.BigIntegerField()),
                    ('share_id', models.CharField(max_length=32, unique=True)),
                    ('scope', models.CharField(max_length=80, unique=True)),
                    ('ticket_id', models.CharField(max_length=64)),
                    ('upload', models.BinaryField(null=True)),
                    ('outputs', models.JSONField(null=True)),
                    ('state', models.CharField(choices=[('held', 'Held'), ('running', 'Running'), ('settled', 'Settled'), ('released', 'Released')], default='held', max_length=8)),
                    ('reason', models.TextField(blank=True)),
                    ('timeline', models.JSONField(default=list)),
                    ('expires_at', models.DateTimeField()),
                    ('ended_at', models.DateTimeField(null=True)),
                ],
                options={
                    'ordering': ['-created_at', '-id'],
                    'indexes': [models.Index(condition=models.Q(('state__in', ['held', 'running'])), fields=['expires_at'], name='listings_query_open'), models.Index(condition=models.Q(('ended_at', None)), fields=['buyer'], name='listings_query_waiting'), models.Index(condition=models.Q(('subscription__isnull', False)), fields=['subscription', 'state'], name='listings_query_of_plan'), models.Index(fields=['epoch', 'version'], name='listings_query_epoch'), models.Index(fields=['buyer', '-created_at', '-id'], name='listings_query_newest'), models.Index(fields=['listing', 'state'], name='listings_query_count'), models.Index(fields=['listing', '-ended_at'], name='listings_query_ended')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('price_micro__gt', 0), ('rows__gt', 0)), name='listings_query_costs'), models.CheckConstraint(condition=models.Q(models.Q(('epoch__isnull', False), ('outputs__isnull', False), ('state', 'settled')), models.Q(('state', 'settled'), _negated=True), _connector='OR'), name='listings_settled_has_epoch_and_outputs'), models.CheckConstraint(condition=models.Q(models.Q(('ended_at__isnull', False), ('state__in', ['settled', 'released'])), models.Q(('ended_at__isnull', True), ('state__in', ['held', 'running'])), _connector='OR'), name='listings_query_ended_when_over')],
                },
            ),
            migrations.CreateModel(
                name='Closing',
                fields=[
                    ('epoch', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='closing', serialize=False, to='subdaos.epoch')),
                    ('step', models.CharField(choices=[('quiet', 'Quiet'), ('weigh', 'Weigh'), ('divide', 'Divide'), ('pay', 'Pay'), ('done', 'Done')], default='quiet', max_length=6)),
                    ('cursor', models.CharField(blank=True, max_length=120)),
                    ('plan', models.JSONField()),
                    ('sdt_micro', models.BigIntegerField()),
                    ('holdings', models.DecimalField(decimal_places=0, default=0, max_digits=60)),
                    ('entitled_micro', models.BigIntegerField()),
                    ('size', models.BigIntegerField(default=0)),
                    ('frontier', models.BinaryField(default=bytes)),
                    ('root', models.CharField(blank=True, max_length=64)),
                ],
                options={
                    'indexes': [models.Index(condition=models.Q(('step', 'done'), _negated=True), fields=['epoch'], name='listings_closing_unfinished')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('step__in', ['quiet', 'weigh', 'divide', 'pay', 'done'])), name='listings_closing_known_step'), models.CheckConstraint(condition=models.Q(('entitled_micro__gte', 0), ('holdings__gte', 0), ('sdt_micro__gte', 0)), name='listings_closing_not_negative')],
                },
            ),
            migrations.CreateModel(
                name='Entitlement',
                fields=[
                    ('pk', models.CompositePrimaryKey('epoch', 'asset', 'role', 'pid', blank=True, editable=False, primary_key=True, serialize=False)),
                    ('epoch', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='entitlements', to='subdaos.epoch')),
                    ('party', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.party')),
                    ('pid', models.CharField(db_collation='C', max_length=32)),
                    ('role', models.CharField(db_collation='C', max_length=12)),
                    ('asset', models.CharField(db_collation='C', max_length=40)),
                    ('weight', models.DecimalField(decimal_places=0, max_digits=60, null=True)),
                    ('amount_micro', models.BigIntegerField(null=True)),
                    ('claimed_at', models.DateTimeField(null=True)),
                ],
                options={
                    'indexes': [models.Index(condition=models.Q(('claimed_at', None)), fields=['party'], name='listings_claimable')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('amount_micro', None), ('amount_micro__gte', 0), _connector='OR'), name='listings_entitlement_not_negative'), models.CheckConstraint(condition=models.Q(('claimed_at', None), ('amount_micro__gt', 0), _connector='OR'), name='listings_claimed_is_something')],
                },
            ),
            migrations.CreateModel(
                name='EntitlementBlock',
                fields=[
                    ('id', models.BigAutoField(primary_key=True, serialize=False)),
                    ('epoch', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='subdaos.epoch')),
                    ('number', models.PositiveIntegerField()),
                    ('first', models.CharField(db_collation='C', max_length=90)),
                    ('hash', models.BinaryField(null=True)),
                ],
                options={
                    'constraints': [models.UniqueConstraint(fields=('epoch', 'number'), name='listings_block_once')],
                },
            ),
            migrations.CreateModel(
                name='PayoutChoice',
                fields=[
                    ('party', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='+', serialize=False, to='accounts.party')),
                    ('auto', models.BooleanField()),
                ],
            ),
        ]),
        migrations.RunSQL((HERE / "claim.sql").read_text()),
        migrations.RunSQL((HERE / "hold.sql").read_text()),
        migrations.RunSQL((HERE / "settle.sql").read_text()),
        migrations.RunSQL((HERE / "shelf.sql").read_text()),
        # Half-empty pages: an entitlement's amount is written beside its weight without touching an
        # index.
        migrations.RunSQL("ALTER TABLE listings_entitlement SET (fillfactor = 50)"),
    ]
