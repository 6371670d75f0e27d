"""What schemathesis does not know of the bodies of Icebox."""

import schemathesis

schemathesis.serializer.alias("application/x-tar", "application/octet-stream")
