import apps.core.clock
import django.db.models.deletion
import django.db.models.fields.json
import django.db.models.functions.comparison
import uuid
from django.db import migrations, models
from apps.core.tables import CreateModels


class Migration(migrations.Migration):

    replaces = [
        ('training', '0001_initial'),
        ('training', '0002_ticket_index'),
        ('training', '0003_scoring'),
        ('training', '0004_model_class'),
        ('training', '0005_reduced_rosters'),
        ('training', '0006_share_parts'),
        ('training', '0007_share_upload'),
        ('training', '0008_lead_metric'),
        ('training', '0009_secure_sgd'),
        ('training', '0010_stakes'),
        ('training', '0011_warm_start'),
    ]

    initial = True

    dependencies = [
        ('accounts', '0001_squashed_0005_key_spend_limit'),
        ('compute', '0001_squashed_0008_answered'),
        ('governance', '0001_squashed_0003_newest_first'),
        ('subdaos', '0001_squashed_0013_divided_epochs'),
    ]

    operations = [
        CreateModels([
            migrations.CreateModel(
                name='ModelVersion',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('dao', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='versions', to='subdaos.dao')),
                    ('number', models.PositiveIntegerField()),
                    ('model', models.CharField(max_length=64, unique=True)),
                    ('evidence', models.JSONField()),
                    ('lead_milli', models.GeneratedField(db_persist=True, expression=models.Case(models.When(evidence__has_key='auc_milli', then=django.db.models.functions.comparison.Cast(django.db.models.fields.json.KeyTextTransform('auc_milli', 'evidence'), models.IntegerField())), models.When(evidence__has_key='accuracy_milli', then=django.db.models.functions.comparison.Cast(django.db.models.fields.json.KeyTextTransform('accuracy_milli', 'evidence'), models.IntegerField())), models.When(evidence__has_key='r2_milli', then=django.db.models.functions.comparison.Cast(django.db.models.fields.json.KeyTextTransform('r2_milli', 'evidence'), models.IntegerField()))), output_field=models.IntegerField(null=True))),
                    ('status', models.CharField(choices=[('proposed', 'Proposed'), ('accepted', 'Accepted'), ('rejected', 'Rejected')], default='proposed', max_length=8)),
                    ('proposal', models.OneToOneField(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.proposal')),
                    ('decided_at', models.DateTimeField(null=True)),
                ],
                options={
                    'ordering': ['-number'],
                    'constraints': [models.UniqueConstraint(fields=('dao', 'number'), name='training_version_number'), models.CheckConstraint(condition=models.Q(models.Q(('decided_at__isnull', True), ('status', 'proposed')), models.Q(models.Q(('status', 'proposed'), _negated=True), ('decided_at__isnull', False)), _connector='OR'), name='training_version_decided_once')],
                },
            ),
            migrations.CreateModel(
                name='Round',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('dao', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='rounds', to='subdaos.dao')),
                    ('number', models.PositiveIntegerField()),
                    ('phase', models.CharField(choices=[('moments', 'Moments'), ('normalising', 'Normalising'), ('updates', 'Updates'), ('computing', 'Computing'), ('done', 'Done'), ('void', 'Void'), ('failed', 'Failed')], default='moments', max_length=12)),
                    ('roster', models.JSONField()),
                    ('roster_hash', models.CharField(max_length=64)),
                    ('nodes', models.JSONField()),
                    ('circuits_hash', models.CharField(max_length=64)),
                    ('features', models.PositiveIntegerField()),
                    ('strata', models.JSONField(default=list)),
                    ('resolution', models.CharField(max_length=12)),
                    ('scoring', models.CharField(default='taylor', max_length=16)),
                    ('model_class', models.CharField(default='logistic', max_length=16)),
                    ('training', models.CharField(choices=[('fedavg', 'Fedavg'), ('secure_sgd', 'Secure Sgd')], default='fedavg', max_length=12)),
                    ('schedule', models.JSONField(default=dict)),
                    ('extras', models.JSONField(default=dict)),
                    ('rows', models.JSONField(default=dict)),
                    ('stakes', models.JSONField(default=dict)),
                    ('normalisation', models.JSONField(null=True)),
                    ('start', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='continued', to='training.modelversion')),
                    ('summed', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='training.round')),
                    ('moments_job', models.OneToOneField(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='moments_round', to='compute.job')),
                    ('round_job', models.OneToOneField(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='round', to='compute.job')),
                    ('progress', models.JSONField(default=list)),
                    ('reason', models.TextField(blank=True)),
                    ('opened_at', models.DateTimeField()),
                    ('due_at', models.DateTimeField(null=True)),
                    ('expires_at', models.DateTimeField()),
                    ('closed_at', models.DateTimeField(null=True)),
                ],
                options={
                    'ordering': ['-number'],
                    'constraints': [models.UniqueConstraint(fields=('dao', 'number'), name='training_round_number'), models.UniqueConstraint(condition=models.Q(('phase__in', ('moments', 'normalising', 'updates', 'computing'))), fields=('dao',), name='training_one_open_round'), models.CheckConstraint(condition=models.Q(('phase__in', ['moments', 'normalising', 'updates', 'computing', 'done', 'void', 'failed'])), name='training_round_known_phase'), models.CheckConstraint(condition=models.Q(models.Q(('closed_at__isnull', True), ('phase__in', ('moments', 'normalising', 'updates', 'computing'))), models.Q(models.Q(('phase__in', ('moments', 'normalising', 'updates', 'computing')), _negated=True), ('closed_at__isnull', False)), _connector='OR'), name='training_round_closed_when_over')],
                },
            ),
            migrations.CreateModel(
                name='Member',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('round', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='members', to='training.round')),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.party')),
                    ('role', models.CharField(max_length=9)),
                    ('key', models.CharField(max_length=64)),
                    ('left_phase', models.CharField(blank=True, choices=[('moments', 'Moments'), ('normalising', 'Normalising'), ('updates', 'Updates'), ('computing', 'Computing'), ('done', 'Done'), ('void', 'Void'), ('failed', 'Failed')], max_length=12)),
                    ('consent', models.JSONField(null=True)),
                ],
                options={
                    'ordering': ['role', 'key'],
                    'constraints': [models.UniqueConstraint(fields=('round', 'key'), name='training_member_key'), models.UniqueConstraint(fields=('round', 'party'), name='training_member_party')],
                },
            ),
            migrations.CreateModel(
                name='Submission',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('round', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='submissions', to='training.round')),
                    ('stage', models.CharField(max_length=8)),
                    ('slot', models.CharField(max_length=32)),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.party')),
                    ('share_id', models.CharField(max_length=32, unique=True)),
                    ('ticket', models.JSONField()),
                    ('ticket_id', models.CharField(max_length=64)),
                    ('sealed', models.JSONField(null=True)),
                    ('offset_bytes', models.PositiveIntegerField(default=0)),
                    ('acks', models.JSONField(default=list)),
                    ('withdrawal', models.JSONField(null=True)),
                    ('state', models.CharField(choices=[('receiving', 'Receiving'), ('received', 'Received'), ('delivered', 'Delivered'), ('refused', 'Refused'), ('replaced', 'Replaced'), ('withdrawing', 'Withdrawing'), ('withdrawn', 'Withdrawn')], default='receiving', max_length=11)),
                    ('reason', models.TextField(blank=True)),
                    ('attempts', models.PositiveIntegerField(default=0)),
                    ('due_at', models.DateTimeField()),
                ],
                options={
                    'indexes': [models.Index(fields=['ticket_id'], name='training_ticket'), models.Index(condition=models.Q(('state__in', ['receiving', 'received', 'withdrawing'])), fields=['due_at'], name='training_share_due')],
                    'constraints': [models.UniqueConstraint(condition=models.Q(('state__in', ['refused', 'replaced', 'withdrawing', 'withdrawn']), _negated=True), fields=('round', 'stage', 'slot', 'party'), name='training_one_share_per_slot')],
                },
            ),
            migrations.CreateModel(
                name='SharePart',
                fields=[
                    ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                    ('submission', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='parts', to='training.submission')),
                    ('offset_bytes', models.PositiveIntegerField()),
                    ('data', models.BinaryField()),
                ],
                options={
                    'ordering': ['offset_bytes'],
                    'constraints': [models.UniqueConstraint(fields=('submission', 'offset_bytes'), name='training_part_once')],
                },
            ),
            migrations.CreateModel(
                name='Score',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('round', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='scores', to='training.round')),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='scores', to='accounts.party')),
                    ('phi_milli', models.PositiveIntegerField()),
                ],
                options={
                    'constraints': [models.UniqueConstraint(fields=('round', 'party'), name='training_one_score'), models.CheckConstraint(condition=models.Q(('phi_milli__lte', 1000)), name='training_phi_in_range')],
                },
            ),
            migrations.CreateModel(
                name='ScoringWork',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('round', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='scoring_work', to='training.round')),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.party')),
                    ('units', models.PositiveIntegerField()),
                ],
                options={
                    'constraints': [models.UniqueConstraint(fields=('round', 'party'), name='training_one_scoring_work')],
                },
            ),
        ]),
        migrations.AddField(
            model_name='modelversion',
            name='round',
            field=models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='version', to='training.round'),
        ),
    ]
