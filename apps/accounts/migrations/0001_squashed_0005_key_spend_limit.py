import apps.accounts.models
import apps.core.clock
import django.db.models.deletion
import uuid
from django.conf import settings
from django.db import migrations, models
from apps.core.tables import CreateModels


class Migration(migrations.Migration):

    replaces = [
        ('accounts', '0001_initial'),
        ('accounts', '0002_key_scopes_expiry_rotation'),
        ('accounts', '0003_key_purposes'),
        ('accounts', '0004_visits'),
        ('accounts', '0005_key_spend_limit'),
    ]

    initial = True

    dependencies = [
    ]

    operations = [
        CreateModels([
            migrations.CreateModel(
                name='User',
                fields=[
                    ('password', models.CharField(max_length=128, verbose_name='password')),
                    ('last_login', models.DateTimeField(blank=True, null=True, verbose_name='last login')),
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('email', models.EmailField(max_length=254, unique=True)),
                    ('is_active', models.BooleanField(default=True)),
                    ('date_joined', models.DateTimeField(default=apps.core.clock.now)),
                    ('visited_at', models.DateTimeField(null=True)),
                    ('visited_before_at', models.DateTimeField(null=True)),
                ],
                options={
                    'abstract': False,
                },
            ),
            migrations.CreateModel(
                name='Party',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('kind', models.CharField(choices=[('person', 'Person'), ('organisation', 'Organisation'), ('dao', 'Dao'), ('system', 'System')], max_length=12)),
                    ('name', models.CharField(max_length=120)),
                    ('slug', models.SlugField(max_length=60, unique=True)),
                    ('pid', models.CharField(default=apps.accounts.models.new_pid, editable=False, max_length=32, unique=True)),
                    ('keyed', models.BooleanField(default=False)),
                    ('nonce', models.BigIntegerField(default=0)),
                ],
                options={
                    'constraints': [models.CheckConstraint(condition=models.Q(('kind__in', ['person', 'organisation', 'dao', 'system'])), name='party_kind_known'), models.CheckConstraint(condition=models.Q(('pid__regex', '^[0-9a-f]{32}$')), name='party_pid_is_hex')],
                },
            ),
            migrations.CreateModel(
                name='Membership',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='memberships', to=settings.AUTH_USER_MODEL)),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='memberships', to='accounts.party')),
                    ('role', models.CharField(default='owner', max_length=12)),
                ],
                options={
                    'constraints': [models.UniqueConstraint(fields=('user', 'party'), name='membership_once'), models.CheckConstraint(condition=models.Q(('role', 'owner')), name='membership_role_known')],
                },
            ),
            migrations.CreateModel(
                name='ApiKey',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='api_keys', to='accounts.party')),
                    ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='api_keys', to=settings.AUTH_USER_MODEL)),
                    ('prefix', models.CharField(max_length=12)),
                    ('sha256', models.CharField(max_length=64, unique=True)),
                    ('label', models.CharField(blank=True, max_length=60)),
                    ('scopes', models.JSONField(default=apps.accounts.models.all_scopes)),
                    ('spend_limit_micro', models.BigIntegerField(null=True)),
                    ('expires_at', models.DateTimeField(null=True)),
                    ('last_used_at', models.DateTimeField(null=True)),
                    ('previous_sha256', models.CharField(blank=True, db_index=True, max_length=64)),
                    ('previous_until', models.DateTimeField(null=True)),
                    ('revoked_at', models.DateTimeField(null=True)),
                ],
                options={
                    'abstract': False,
                },
            ),
            migrations.CreateModel(
                name='PartyKey',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='keys', to='accounts.party')),
                    ('purpose', models.CharField(default='agent', max_length=8)),
                    ('public_key', models.CharField(max_length=64)),
                    ('signature', models.CharField(max_length=128)),
                    ('active', models.BooleanField(default=True)),
                ],
                options={
                    'constraints': [models.UniqueConstraint(condition=models.Q(('active', True)), fields=('party', 'purpose'), name='party_has_one_active_key_a_purpose'), models.CheckConstraint(condition=models.Q(('purpose__in', ('agent', 'wallet', 'recovery'))), name='party_key_purpose_known'), models.UniqueConstraint(condition=models.Q(('active', True)), fields=('public_key',), name='active_key_has_one_party'), models.CheckConstraint(condition=models.Q(('public_key__regex', '^[0-9a-f]{64}$')), name='party_key_is_hex')],
                },
            ),
        ]),
    ]
