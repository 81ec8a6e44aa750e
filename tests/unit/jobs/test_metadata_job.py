"""Large metadata files."""

import json
import random
import time

from sdft.events import ignore
from sdft.jobs.metadata import run_clean
from tests.slowness import slowness

TAGS = ["2girls", "long_hair", "blue_hair", "red_hair", "blue_eyes", "red_eyes"]
TAGS += ["shirt", "white_shirt", "smile", "hat"]


def test_a_metadata_file_of_a_hundred_thousand_entries_is_cleaned_within_ten_seconds(tmp_path):
    draw = random.Random(1)
    vocabulary = TAGS + [f"{word}_{number}" for word in TAGS for number in range(500)]
    entries = {
        f"{number:06}.png": {
            "caption": "a young woman standing on a beach with a cartoon character",
            "tags": ", ".join([*draw.choices(vocabulary, k=30), "rating:safe"]),
        }
        for number in range(100_000)
    }
    path = tmp_path / "meta.json"
    path.write_text(json.dumps(entries, indent=2))
    start_s = time.process_time()
    result = run_clean(path, emit=ignore)
    assert time.process_time() - start_s < 10 * slowness()
    assert (result.entries, result.written) == (100_000, True)
    assert json.loads(path.read_bytes())["000000.png"]["caption"].startswith("a girl standing")
