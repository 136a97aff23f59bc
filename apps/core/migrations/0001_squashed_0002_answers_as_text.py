import apps.core.clock
import django.db.models.deletion
import uuid
from django.db import migrations, models
from apps.core.tables import CreateModels


class Migration(migrations.Migration):

    replaces = [
        ('core', '0001_initial'),
        ('core', '0002_answers_as_text'),
    ]

    initial = True

    dependencies = [
    ]

    operations = [
        CreateModels([
            migrations.CreateModel(
                name='OutboxEvent',
                fields=[
                    ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now, editable=False)),
                    ('name', models.CharField(max_length=100)),
                    ('payload', models.JSONField()),
                    ('due_at', models.DateTimeField()),
                    ('attempts', models.PositiveIntegerField(default=0)),
                    ('dispatched_at', models.DateTimeField(null=True)),
                ],
                options={
                    'indexes': [models.Index(condition=models.Q(('dispatched_at', None)), fields=['due_at'], name='outbox_waiting')],
                },
            ),
            migrations.CreateModel(
                name='HandledEvent',
                fields=[
                    ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                    ('event', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='handled', to='core.outboxevent')),
                    ('handler', models.CharField(max_length=200)),
                    ('at', models.DateTimeField()),
                ],
                options={
                    'constraints': [models.UniqueConstraint(fields=('event', 'handler'), name='handled_once')],
                },
            ),
            migrations.CreateModel(
                name='IdempotentCall',
                fields=[
                    ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                    ('actor_id', models.UUIDField()),
                    ('key', models.CharField(max_length=200)),
                    ('digest', models.CharField(max_length=64)),
                    ('status', models.PositiveSmallIntegerField(null=True)),
                    ('response', models.TextField(default='')),
                    ('created_at', models.DateTimeField(default=apps.core.clock.now)),
                ],
                options={
                    'constraints': [models.UniqueConstraint(fields=('actor_id', 'key'), name='idempotent_key_once')],
                },
            ),
        ]),
    ]
