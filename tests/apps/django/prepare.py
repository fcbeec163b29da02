"""Makes the tables, and the people who may sign in."""

import django
from django.core.management import call_command

django.setup()
call_command("migrate", verbosity=0)

from django.contrib.auth.models import User  # noqa: E402  (needs the setup above)

for name in ("ann", "bob"):
    User.objects.create_superuser(name, password=f"{name}-secret")
