import apps.core.clock
import django.db.models.deletion
import uuid
from pathlib import Path
from django.db import migrations, models
from apps.core.tables import CreateModels

HERE = Path(__file__).parent


class Migration(migrations.Migration):

    replaces = [
        ('governance', '0001_initial'),
        ('governance', '0002_search'),
        ('governance', '0003_newest_first'),
    ]

    initial = True

    dependencies = [
        ('accounts', '0001_squashed_0005_key_spend_limit'),
        ('subdaos', '0001_squashed_0013_divided_epochs'),
    ]

    operations = [
        CreateModels([
            migrations.CreateModel(
                name='Proposal',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('dao', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='proposals', to='subdaos.dao')),
                    ('house', models.CharField(choices=[('super', 'Super'), ('sbgt', 'Sbgt'), ('sdt', 'Sdt')], max_length=5)),
                    ('kind', models.CharField(max_length=60)),
                    ('payload', models.JSONField()),
                    ('payload_hash', models.CharField(max_length=64)),
                    ('changes', models.JSONField(default=list)),
                    ('title', models.CharField(max_length=200)),
                    ('description', models.TextField(blank=True)),
                    ('proposer', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='proposals', to='accounts.party')),
                    ('ref', models.CharField(blank=True, max_length=64)),
                    ('snapshot_at', models.DateTimeField()),
                    ('voting_starts_at', models.DateTimeField()),
                    ('voting_ends_at', models.DateTimeField()),
                    ('quorum_bps', models.PositiveIntegerField()),
                    ('threshold_bps', models.PositiveIntegerField()),
                    ('timelock_s', models.PositiveIntegerField(default=0)),
                    ('grace_s', models.PositiveIntegerField()),
                    ('late_quorum_s', models.PositiveIntegerField(default=0)),
                    ('extended_at', models.DateTimeField(blank=True, null=True)),
                    ('total_weight', models.BigIntegerField(blank=True, null=True)),
                    ('for_weight', models.BigIntegerField(default=0)),
                    ('against_weight', models.BigIntegerField(default=0)),
                    ('abstain_weight', models.BigIntegerField(default=0)),
                    ('canceled_at', models.DateTimeField(blank=True, null=True)),
                    ('concluded_at', models.DateTimeField(blank=True, null=True)),
                    ('executed_at', models.DateTimeField(blank=True, null=True)),
                    ('execution_error', models.TextField(blank=True)),
                    ('execution_attempts', models.PositiveIntegerField(default=0)),
                    ('execute_after', models.DateTimeField(blank=True, null=True)),
                ],
                options={
                    'ordering': ['-created_at', '-id'],
                    'indexes': [models.Index(fields=['payload_hash'], name='governance_payload_hash'), models.Index(condition=models.Q(('canceled_at__isnull', True), ('concluded_at__isnull', True)), fields=['voting_ends_at'], name='governance_to_conclude'), models.Index(condition=models.Q(('execute_after__isnull', False), ('executed_at__isnull', True)), fields=['execute_after'], name='governance_to_execute'), models.Index(fields=['-created_at', '-id'], name='governance_newest'), models.Index(fields=['dao', '-created_at', '-id'], name='governance_newest_of_dao'), models.Index(condition=models.Q(('canceled_at__isnull', True), ('executed_at__isnull', True)), fields=['-created_at', '-id'], name='governance_newest_going')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('voting_ends_at__gt', models.F('voting_starts_at'))), name='governance_voting_has_length'), models.CheckConstraint(condition=models.Q(('quorum_bps__lte', 10000), ('threshold_bps__gte', 1), ('threshold_bps__lte', 10000)), name='governance_bps_in_range'), models.CheckConstraint(condition=models.Q(('abstain_weight__gte', 0), ('against_weight__gte', 0), ('for_weight__gte', 0)), name='governance_weights_not_neg'), models.CheckConstraint(condition=models.Q(('canceled_at__isnull', True), ('executed_at__isnull', True), _connector='OR'), name='governance_not_canceled_and_executed'), models.UniqueConstraint(condition=models.Q(('ref', ''), _negated=True), fields=('kind', 'ref'), name='governance_one_per_ref')],
                },
            ),
            migrations.CreateModel(
                name='SnapshotWeight',
                fields=[
                    ('id', models.BigAutoField(primary_key=True, serialize=False)),
                    ('proposal', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='weights', to='governance.proposal')),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.party')),
                    ('weight', models.BigIntegerField()),
                ],
                options={
                    'constraints': [models.UniqueConstraint(fields=('proposal', 'party'), name='governance_one_weight_per_party'), models.CheckConstraint(condition=models.Q(('weight__gt', 0)), name='governance_weight_positive')],
                },
            ),
            migrations.CreateModel(
                name='Vote',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('proposal', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='votes', to='governance.proposal')),
                    ('voter', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='votes', to='accounts.party')),
                    ('support', models.CharField(choices=[('against', 'Against'), ('for', 'For'), ('abstain', 'Abstain')], max_length=7)),
                    ('weight', models.BigIntegerField()),
                    ('at', models.DateTimeField()),
                ],
                options={
                    'ordering': ['at', 'id'],
                    'indexes': [models.Index(fields=['proposal', 'at', 'id'], name='governance_votes_in_order')],
                    'constraints': [models.UniqueConstraint(fields=('proposal', 'voter'), name='governance_one_vote'), models.CheckConstraint(condition=models.Q(('weight__gt', 0)), name='governance_vote_has_weight')],
                },
            ),
        ]),
        migrations.RunSQL((HERE / "search.sql").read_text()),
    ]
