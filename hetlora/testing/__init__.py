"""A service for the tests of apps and clients: real HTTP on this machine, no database, answers by script."""

from hetlora.testing.fake_service import FakeService
from hetlora.testing.loopback import CUT, Reply, Request

__all__ = ["CUT", "FakeService", "Reply", "Request"]
