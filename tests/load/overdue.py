"""Let an open loop's user ask three times, 5 s after the requests were due, and print each one's milliseconds."""

import argparse
import time

from locust import events
from locust.env import Environment

from load_tests.arrivals import PoissonArrivals
from load_tests.kinds import Inputs, Mix
from load_tests.locustfile import OpenUser


class Prompt:
    """A connection to nothing, over which every request is answered at once."""

    def call(self, *_: object) -> int:
        """Return an answer's size in bytes."""
        return 1


options = argparse.Namespace(rate=1000.0, seed=1)
OpenUser.host = "localhost:1"
user = OpenUser(Environment(events=events, parsed_options=options))
user.on_start()
user.mix = Mix(Inputs("translator", ["text"], "classifier", ["text"], [b"image"]), 0.5, seed=1)
user.connection = Prompt()
user.arrivals = PoissonArrivals(options.rate, options.seed, clock=lambda: time.perf_counter() - 5)
events.request.add_listener(lambda response_time, **_: print(response_time))
for _ in range(3):
    user.ask_next()
user.unanswered.join()
