import apps.core.clock
import django.db.models.deletion
import uuid
from pathlib import Path
from django.db import migrations, models
from apps.core.tables import CreateModels

HERE = Path(__file__).parent


class Migration(migrations.Migration):

    replaces = [
        ('rfms', '0001_initial'),
        ('rfms', '0002_search'),
        ('rfms', '0003_newest_first'),
        ('rfms', '0004_sponsors'),
    ]

    initial = True

    dependencies = [
        ('accounts', '0001_squashed_0005_key_spend_limit'),
        ('governance', '0001_squashed_0003_newest_first'),
        ('participants', '0001_squashed_0003_newest_first'),
        ('subdaos', '0001_squashed_0013_divided_epochs'),
        ('wallets', '0001_squashed_0009_prepaid'),
    ]

    operations = [
        CreateModels([
            migrations.CreateModel(
                name='Rfm',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('slug', models.SlugField(max_length=60, unique=True)),
                    ('title', models.CharField(max_length=160)),
                    ('submitter', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='rfms', to='accounts.party')),
                    ('spec', models.JSONField()),
                    ('spec_hash', models.CharField(max_length=64)),
                    ('proposal', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='governance.proposal')),
                    ('call', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='participants.call')),
                    ('subdao', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='subdaos.dao')),
                    ('submitted_at', models.DateTimeField(blank=True, null=True)),
                    ('approved_at', models.DateTimeField(blank=True, null=True)),
                    ('rejected_at', models.DateTimeField(blank=True, null=True)),
                    ('awarded_at', models.DateTimeField(blank=True, null=True)),
                    ('failed_at', models.DateTimeField(blank=True, null=True)),
                ],
                options={
                    'verbose_name': 'RFM',
                    'ordering': ['-created_at', '-id'],
                    'indexes': [models.Index(fields=['-created_at', '-id'], name='rfms_newest')],
                    'constraints': [models.CheckConstraint(condition=models.Q(models.Q(('approved_at__isnull', True), ('submitted_at__isnull', False), _connector='OR'), models.Q(('rejected_at__isnull', True), ('approved_at__isnull', True), _connector='OR'), models.Q(('awarded_at__isnull', True), ('approved_at__isnull', False), _connector='OR'), models.Q(('failed_at__isnull', True), ('awarded_at__isnull', True), _connector='OR')), name='rfms_one_course'), models.CheckConstraint(condition=models.Q(('awarded_at__isnull', True), ('subdao__isnull', False), _connector='OR'), name='rfms_award_has_subdao')],
                },
            ),
            migrations.CreateModel(
                name='Crowdfund',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('rfm', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='crowdfund', to='rfms.rfm')),
                    ('escrow', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='wallets.account')),
                    ('target_micro', models.BigIntegerField()),
                    ('raised_micro', models.BigIntegerField(default=0)),
                    ('sdt_supply_micro', models.BigIntegerField()),
                    ('opened_at', models.DateTimeField()),
                    ('deadline_at', models.DateTimeField()),
                    ('filled_at', models.DateTimeField(blank=True, null=True)),
                    ('awarded_at', models.DateTimeField(blank=True, null=True)),
                    ('failed_at', models.DateTimeField(blank=True, null=True)),
                    ('refunded_at', models.DateTimeField(blank=True, null=True)),
                ],
                options={
                    'indexes': [models.Index(condition=models.Q(('awarded_at__isnull', True), ('refunded_at__isnull', True)), fields=['deadline_at'], name='rfms_crowdfund_due')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('awarded_at__isnull', True), models.Q(('failed_at__isnull', True), ('filled_at__isnull', False)), _connector='OR'), name='rfms_awarded_was_full'), models.CheckConstraint(condition=models.Q(('raised_micro__gte', 0), ('target_micro__gt', 0), ('raised_micro__lte', models.F('target_micro'))), name='rfms_raised_within_target'), models.CheckConstraint(condition=models.Q(('filled_at__isnull', True), ('raised_micro', models.F('target_micro')), _connector='OR'), name='rfms_filled_means_full')],
                },
            ),
            migrations.CreateModel(
                name='Pledge',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('crowdfund', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='pledges', to='rfms.crowdfund')),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='pledges', to='accounts.party')),
                    ('asked_micro', models.BigIntegerField()),
                    ('amount_micro', models.BigIntegerField()),
                    ('pledged_at', models.DateTimeField()),
                    ('withdrawn_at', models.DateTimeField(blank=True, null=True)),
                    ('refunded_at', models.DateTimeField(blank=True, null=True)),
                ],
                options={
                    'ordering': ['pledged_at', 'id'],
                    'indexes': [models.Index(condition=models.Q(('refunded_at__isnull', True), ('withdrawn_at__isnull', True)), fields=['crowdfund'], name='rfms_pledges_standing')],
                    'constraints': [models.CheckConstraint(condition=models.Q(('amount_micro__gt', 0), ('amount_micro__lte', models.F('asked_micro'))), name='rfms_pledge_accepted_within_asked'), models.CheckConstraint(condition=models.Q(('withdrawn_at__isnull', True), ('refunded_at__isnull', True), _connector='OR'), name='rfms_pledge_returned_once')],
                },
            ),
        ]),
        migrations.RunSQL((HERE / "search.sql").read_text()),
    ]
