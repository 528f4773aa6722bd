"""Uses OpenMeter's official Python client, unchanged, against the server at TURNPIKE_URL."""

import datetime
import os

from openmeter import Client
from openmeter.models import Event

client = Client(endpoint=os.environ["TURNPIKE_URL"], token=os.environ["TURNPIKE_API_KEY"])
start = datetime.datetime(2026, 1, 15, 12, 0, tzinfo=datetime.timezone.utc)


def event(number, tokens, model, at=start):
    data = {"tokens": tokens, "model": model}
    return Event(id=f"py-{number}", source="py", specversion="1.0", type="prompt", subject="customer-1", time=at, data=data)


client.events.ingest_event(event(1, 100, "gpt"))
client.events.ingest_event(event(1, 100, "gpt"))
client.events.ingest_events([event(2, 20, "gpt"), event(3, 3, "other", start + datetime.timedelta(hours=2))])

total = client.meters.query_json(meter_id_or_slug="tokens_total")
assert [row.value for row in total.data] == [123], total.data

hours = client.meters.query_json(
    meter_id_or_slug="tokens_total", window_size="HOUR", group_by=["model"], subject=["customer-1"],
    from_parameter=start, to=start + datetime.timedelta(days=1),
)
found = sorted((row.window_start.isoformat(), row.group_by["model"], row.value) for row in hours.data)
assert found == [("2026-01-15T12:00:00+00:00", "gpt", 120), ("2026-01-15T14:00:00+00:00", "other", 3)], found
print("python client: ok")
