"""What every store must do, as tests: one class to inherit from, one fixture to write.

    from dalsegno.testing.store_suite import Place, StoreSuite

    class TestMyStore(StoreSuite):
        @pytest.fixture
        def place(self, tmp_path):
            return MyPlace(tmp_path)

A `Place` makes stores that keep their data in one place, and can end one as a crash of its process would.
"""

from dalsegno.testing.store_suite.batches import BatchTests
from dalsegno.testing.store_suite.events import EventTests
from dalsegno.testing.store_suite.instances import InstanceTests
from dalsegno.testing.store_suite.listing import ListingTests
from dalsegno.testing.store_suite.neighbours import NeighbourTests
from dalsegno.testing.store_suite.ownership import OwnershipTests
from dalsegno.testing.store_suite.people import PeopleTests
from dalsegno.testing.store_suite.place import Place
from dalsegno.testing.store_suite.queues import QueueTests
from dalsegno.testing.store_suite.recovery import RecoveryTests
from dalsegno.testing.store_suite.transactions import TransactionTests
from dalsegno.testing.store_suite.waits import WaitTests


class StoreSuite(
    OwnershipTests,
    BatchTests,
    InstanceTests,
    ListingTests,
    WaitTests,
    EventTests,
    PeopleTests,
    TransactionTests,
    RecoveryTests,
    NeighbourTests,
    QueueTests,
):
    """All of it; a subclass brings the fixture `place`."""


__all__ = ["Place", "StoreSuite"]
