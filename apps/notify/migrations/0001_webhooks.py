import apps.core.clock
import django.db.models.deletion
import uuid
from django.db import migrations, models
from apps.core.tables import CreateModels


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('accounts', '0001_squashed_0005_key_spend_limit'),
    ]

    operations = [
        CreateModels([
            migrations.CreateModel(
                name='Endpoint',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('party', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='webhooks', to='accounts.party')),
                    ('url', models.CharField(max_length=500)),
                    ('events', models.JSONField()),
                    ('generation', models.PositiveIntegerField(default=1)),
                    ('removed_at', models.DateTimeField(null=True)),
                ],
                options={
                    'indexes': [models.Index(condition=models.Q(('removed_at', None)), fields=['party'], name='notify_endpoint_of_party')],
                },
            ),
            migrations.CreateModel(
                name='Delivery',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('endpoint', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='deliveries', to='notify.endpoint')),
                    ('event', models.CharField(max_length=40)),
                    ('body', models.TextField()),
                    ('state', models.CharField(choices=[('pending', 'Pending'), ('delivered', 'Delivered'), ('failed', 'Failed')], default='pending', max_length=10)),
                    ('attempts', models.PositiveSmallIntegerField(default=0)),
                    ('due_at', models.DateTimeField()),
                    ('answer', models.CharField(blank=True, max_length=200)),
                    ('ended_at', models.DateTimeField(null=True)),
                ],
                options={
                    'indexes': [models.Index(condition=models.Q(('state', 'pending')), fields=['due_at'], name='notify_due'), models.Index(fields=['endpoint', '-created_at', '-id'], name='notify_newest')],
                    'constraints': [models.CheckConstraint(condition=models.Q(models.Q(('ended_at__isnull', True), ('state', 'pending')), models.Q(('ended_at__isnull', False), ('state__in', ['delivered', 'failed'])), _connector='OR'), name='notify_delivery_ended_when_over')],
                },
            ),
        ]),
    ]
