import apps.core.clock
import django.db.models.deletion
import uuid
from django.db import migrations, models
from apps.core.tables import CreateModels


class Migration(migrations.Migration):

    replaces = [
        ('participants', '0001_initial'),
        ('participants', '0002_removed_members'),
        ('participants', '0003_newest_first'),
    ]

    initial = True

    dependencies = [
        ('accounts', '0001_squashed_0005_key_spend_limit'),
        ('subdaos', '0001_squashed_0013_divided_epochs'),
    ]

    operations = [
        CreateModels([
            migrations.CreateModel(
                name='Call',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('slug', models.SlugField(max_length=60, unique=True)),
                    ('dao', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='call', to='subdaos.dao')),
                    ('schema', models.JSONField()),
                    ('schema_hash', models.CharField(max_length=64)),
                    ('rows_min', models.PositiveIntegerField()),
                    ('opened_at', models.DateTimeField()),
                    ('closed_at', models.DateTimeField(blank=True, null=True)),
                ],
                options={
                    'abstract': False,
                },
            ),
            migrations.CreateModel(
                name='Application',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('call', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='applications', to='participants.call')),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='applications', to='accounts.party')),
                    ('role', models.CharField(choices=[('custodian', 'Custodian'), ('validator', 'Validator')], max_length=9)),
                    ('public_key', models.CharField(max_length=64)),
                    ('attestation', models.JSONField()),
                    ('signature', models.CharField(max_length=128)),
                    ('filed_at', models.DateTimeField()),
                    ('verified_at', models.DateTimeField()),
                    ('whitelisted_at', models.DateTimeField(blank=True, null=True)),
                    ('rejected_at', models.DateTimeField(blank=True, null=True)),
                    ('removed_at', models.DateTimeField(blank=True, null=True)),
                ],
                options={
                    'ordering': ['filed_at', 'id'],
                    'indexes': [models.Index(fields=['call', 'filed_at', 'id'], name='participants_in_order')],
                    'constraints': [models.UniqueConstraint(fields=('call', 'party'), name='participants_one_per_party'), models.UniqueConstraint(fields=('call', 'public_key'), name='participants_one_per_key'), models.CheckConstraint(condition=models.Q(('whitelisted_at__isnull', True), ('rejected_at__isnull', True), _connector='OR'), name='participants_not_in_and_out'), models.CheckConstraint(condition=models.Q(('removed_at__isnull', True), ('whitelisted_at__isnull', False), _connector='OR'), name='participants_removed_was_in')],
                },
            ),
        ]),
    ]
