import apps.core.clock
import django.db.models.deletion
import uuid
from pathlib import Path
from django.db import migrations, models
from apps.core.tables import CreateModels

HERE = Path(__file__).parent


class Migration(migrations.Migration):

    replaces = [
        ('compute', '0001_initial'),
        ('compute', '0002_receipt_operator'),
        ('compute', '0003_receipt_index'),
        ('compute', '0004_newest_first'),
        ('compute', '0005_cosignatures'),
        ('compute', '0006_cosignature_unwatched'),
        ('compute', '0007_job_behind'),
        ('compute', '0008_answered'),
    ]

    initial = True

    dependencies = [
        ('accounts', '0001_squashed_0005_key_spend_limit'),
        ('wallets', '0001_squashed_0009_prepaid'),
    ]

    operations = [
        CreateModels([
            migrations.CreateModel(
                name='Node',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('fingerprint', models.CharField(max_length=64, unique=True)),
                    ('name', models.CharField(max_length=64)),
                    ('index', models.PositiveSmallIntegerField()),
                    ('control_url', models.CharField(max_length=200)),
                    ('descriptor', models.JSONField()),
                    ('operator', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='nodes', to='accounts.party')),
                    ('active', models.BooleanField(default=True)),
                ],
                options={
                    'ordering': ['index'],
                    'constraints': [models.UniqueConstraint(condition=models.Q(('active', True)), fields=('index',), name='compute_node_one_per_index')],
                },
            ),
            migrations.CreateModel(
                name='Cosignature',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('head', models.ForeignKey(db_column='size', db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='cosignatures', to='wallets.treehead')),
                    ('node', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='cosignatures', to='compute.node')),
                    ('signature', models.CharField(max_length=128)),
                ],
                options={
                    'constraints': [models.UniqueConstraint(fields=('head', 'node'), name='compute_cosignature_once')],
                },
            ),
            migrations.CreateModel(
                name='Job',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('job_id', models.CharField(max_length=32, unique=True)),
                    ('kind', models.CharField(max_length=16)),
                    ('circuit', models.CharField(max_length=80)),
                    ('scope', models.CharField(max_length=80)),
                    ('descriptor', models.JSONField()),
                    ('attempt', models.PositiveIntegerField(default=0)),
                    ('state', models.CharField(choices=[('queued', 'Queued'), ('running', 'Running'), ('committing', 'Committing'), ('done', 'Done'), ('failed', 'Failed')], default='queued', max_length=12)),
                    ('error_code', models.CharField(blank=True, max_length=64)),
                    ('reason', models.TextField(blank=True)),
                    ('openings', models.JSONField(null=True)),
                    ('model', models.CharField(blank=True, max_length=64)),
                    ('behind', models.JSONField(blank=True, default=list)),
                    ('due_at', models.DateTimeField()),
                    ('lease_until', models.DateTimeField(null=True)),
                    ('expires_at', models.DateTimeField()),
                    ('done_at', models.DateTimeField(null=True)),
                ],
                options={
                    'indexes': [models.Index(condition=models.Q(('state__in', ['done', 'failed']), _negated=True), fields=['due_at'], name='compute_job_open'), models.Index(fields=['-created_at', '-id'], name='compute_job_newest')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('state__in', ['queued', 'running', 'committing', 'done', 'failed'])), name='compute_job_known_state'), models.CheckConstraint(condition=models.Q(('lease_until__isnull', False), models.Q(('state__in', ['running', 'committing']), _negated=True), _connector='OR'), name='compute_job_held_by_a_lease')],
                },
            ),
            migrations.CreateModel(
                name='Receipt',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('job', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='receipts', to='compute.job')),
                    ('node', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='receipts', to='compute.node')),
                    ('operator', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='receipts', to='accounts.party')),
                    ('body', models.JSONField()),
                    ('signature', models.CharField(max_length=128)),
                ],
                options={
                    'indexes': [models.Index(fields=['signature'], name='compute_receipt_signature'), models.Index(fields=['node', 'created_at'], name='compute_receipt_of_node')],
                    'constraints': [models.UniqueConstraint(fields=('job', 'node'), name='compute_receipt_one_per_node')],
                },
            ),
        ]),
        migrations.RunSQL((HERE / "answered.sql").read_text()),
    ]
