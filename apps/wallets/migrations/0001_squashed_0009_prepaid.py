import apps.core.clock
import django.db.models.deletion
import django.db.models.expressions
import uuid
from pathlib import Path
from django.db import migrations, models
from apps.core.tables import CreateModels

HERE = Path(__file__).parent


class Migration(migrations.Migration):

    replaces = [
        ('wallets', '0001_initial'),
        ('wallets', '0002_append_only'),
        ('wallets', '0003_hot_write'),
        ('wallets', '0004_head_root_index'),
        ('wallets', '0005_exchange_purposes'),
        ('wallets', '0006_accounts_in_order'),
        ('wallets', '0007_emission_purposes'),
        ('wallets', '0008_payment_settings'),
        ('wallets', '0009_prepaid'),
    ]

    initial = True

    dependencies = [
        ('accounts', '0001_squashed_0005_key_spend_limit'),
        ('core', '0001_squashed_0002_answers_as_text'),
    ]

    operations = [
        CreateModels([
            migrations.CreateModel(
                name='Asset',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('code', models.CharField(max_length=40, unique=True)),
                    ('name', models.CharField(max_length=120)),
                    ('scale', models.PositiveSmallIntegerField(default=6)),
                    ('cap_micro', models.BigIntegerField()),
                ],
                options={
                    'constraints': [models.CheckConstraint(condition=models.Q(('cap_micro__gte', 0)), name='asset_cap_not_negative'), models.CheckConstraint(condition=models.Q(('code__regex', '^[A-Z][A-Za-z0-9-]{1,39}$')), name='asset_code_shape')],
                },
            ),
            migrations.CreateModel(
                name='Account',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('owner', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='accounts', to='accounts.party')),
                    ('asset', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='accounts', to='wallets.asset')),
                    ('purpose', models.CharField(default='main', max_length=10)),
                    ('posted_micro', models.BigIntegerField(default=0)),
                    ('held_micro', models.BigIntegerField(default=0)),
                    ('floor_micro', models.BigIntegerField(default=0)),
                    ('last_at', models.DateTimeField(null=True)),
                    ('closed_at', models.DateTimeField(null=True)),
                ],
                options={
                    'indexes': [models.Index(fields=['asset', 'purpose', 'id'], name='account_in_order')],
                    'constraints': [models.UniqueConstraint(fields=('owner', 'asset', 'purpose'), name='account_once'), models.CheckConstraint(condition=models.Q(('purpose__in', ('main', 'staked', 'unstaking', 'escrow', 'treasury', 'revenue', 'fees', 'issuance', 'reserve', 'conversion', 'sponsors', 'pool', 'vault', 'prepaid'))), name='account_purpose_known'), models.CheckConstraint(condition=models.Q(('held_micro__gte', 0)), name='account_held_not_negative'), models.CheckConstraint(condition=models.Q(('posted_micro__gte', django.db.models.expressions.CombinedExpression(models.F('floor_micro'), '+', models.F('held_micro')))), name='account_available_above_floor'), models.CheckConstraint(condition=models.Q(('floor_micro', 0), models.Q(('floor_micro__lt', 0), ('purpose', 'issuance')), _connector='OR'), name='account_floor_only_for_issuance'), models.CheckConstraint(condition=models.Q(('closed_at', None), ('posted_micro', 0), _connector='OR'), name='account_closed_is_empty')],
                },
            ),
            migrations.CreateModel(
                name='PaymentSettings',
                fields=[
                    ('party', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='+', serialize=False, to='accounts.party')),
                    ('low_micro', models.BigIntegerField(null=True)),
                    ('low_since', models.DateTimeField(null=True)),
                    ('billing', models.TextField(blank=True)),
                ],
                options={
                    'constraints': [models.CheckConstraint(condition=models.Q(('low_micro', None), ('low_micro__gt', 0), _connector='OR'), name='low_balance_positive'), models.CheckConstraint(condition=models.Q(('low_since', None), ('low_micro__isnull', False), _connector='OR'), name='low_since_with_threshold')],
                },
            ),
            migrations.CreateModel(
                name='Transfer',
                fields=[
                    ('id', models.UUIDField(primary_key=True, serialize=False)),
                    ('debit', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='debits', to='wallets.account')),
                    ('credit', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='credits', to='wallets.account')),
                    ('amount_micro', models.BigIntegerField()),
                    ('kind', models.CharField(max_length=40)),
                    ('phase', models.CharField(choices=[('single', 'Single'), ('pend', 'Pend'), ('post', 'Post'), ('void', 'Void')], default='single', max_length=6)),
                    ('pending', models.OneToOneField(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='resolution', to='wallets.transfer')),
                    ('expires_at', models.DateTimeField(null=True)),
                    ('ref_type', models.CharField(blank=True, max_length=40)),
                    ('ref_id', models.CharField(blank=True, max_length=64)),
                    ('memo', models.CharField(blank=True, max_length=200)),
                    ('created_at', models.DateTimeField()),
                ],
                options={
                    'indexes': [models.Index(fields=['debit', 'created_at'], name='transfer_debit_at'), models.Index(fields=['credit', 'created_at'], name='transfer_credit_at'), models.Index(fields=['ref_type', 'ref_id'], name='transfer_ref')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('amount_micro__gt', 0)), name='transfer_amount_positive'), models.CheckConstraint(condition=models.Q(('debit', models.F('credit')), _negated=True), name='transfer_two_accounts'), models.CheckConstraint(condition=models.Q(('phase__in', ['single', 'pend', 'post', 'void'])), name='transfer_phase_known'), models.CheckConstraint(condition=models.Q(models.Q(('pending', None), ('phase__in', ['single', 'pend'])), models.Q(('pending__isnull', False), ('phase__in', ['post', 'void'])), _connector='OR'), name='transfer_resolution_names_pending'), models.CheckConstraint(condition=models.Q(models.Q(('expires_at__isnull', False), ('phase', 'pend')), models.Q(models.Q(('phase', 'pend'), _negated=True), ('expires_at', None)), _connector='OR'), name='transfer_only_pend_expires'), models.CheckConstraint(condition=models.Q(('kind__regex', '^[a-z][a-z0-9_.]*$')), name='transfer_kind_is_code')],
                },
            ),
            migrations.CreateModel(
                name='Hold',
                fields=[
                    ('transfer', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, serialize=False, to='wallets.transfer')),
                    ('account', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='holds', to='wallets.account')),
                    ('amount_micro', models.BigIntegerField()),
                    ('expires_at', models.DateTimeField()),
                ],
                options={
                    'indexes': [models.Index(fields=['expires_at'], name='hold_expiry')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('amount_micro__gt', 0)), name='hold_amount_positive')],
                },
            ),
            migrations.CreateModel(
                name='LogLeaf',
                fields=[
                    ('id', models.BigAutoField(primary_key=True, serialize=False)),
                    ('seq', models.BigIntegerField(null=True, unique=True)),
                    ('type', models.CharField(max_length=60)),
                    ('ref_id', models.CharField(blank=True, max_length=64)),
                    ('data', models.BinaryField()),
                    ('hash', models.BinaryField()),
                ],
                options={
                    'indexes': [models.Index(condition=models.Q(('seq', None)), fields=['id'], name='leaf_waiting'), models.Index(fields=['hash'], name='leaf_hash'), models.Index(fields=['type', 'ref_id'], name='leaf_ref')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('seq', None), ('seq__gte', 0), _connector='OR'), name='leaf_seq_not_negative')],
                },
            ),
            migrations.CreateModel(
                name='LogNode',
                fields=[
                    ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                    ('level', models.PositiveSmallIntegerField()),
                    ('index', models.BigIntegerField()),
                    ('hash', models.BinaryField()),
                ],
                options={
                    'constraints': [models.UniqueConstraint(fields=('level', 'index'), name='log_node_once')],
                },
            ),
            migrations.CreateModel(
                name='TreeHead',
                fields=[
                    ('size', models.BigIntegerField(primary_key=True, serialize=False)),
                    ('root', models.CharField(max_length=64)),
                    ('at_ms', models.BigIntegerField()),
                    ('signature', models.CharField(max_length=128)),
                ],
                options={
                    'indexes': [models.Index(fields=['root'], name='head_root')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('size__gt', 0)), name='head_size_positive')],
                },
            ),
        ]),
        migrations.RunSQL((HERE / "append_only.sql").read_text()),
        migrations.RunSQL((HERE / "write.sql").read_text()),
        # Balances change all the time and none of its indexes with them: room for the new row on
        # the old one's page spares them.
        migrations.RunSQL("ALTER TABLE wallets_account SET (fillfactor = 70)"),
    ]
