"""What schemathesis has to be told: how NDJSON is written."""

import schemathesis


@schemathesis.serializer("application/x-ndjson", "text/plain", "text/csv")
def text(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
