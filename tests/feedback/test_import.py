import json
import subprocess
import sys

PROBE = """
import json, sys, time
start = time.process_time()
import feedback
print(json.dumps([time.process_time() - start, sorted(sys.modules)]))
"""


def test_importing_feedback_is_quick_and_brings_no_models_no_page_and_no_datasets():
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    seconds, modules = json.loads(done.stdout)
    heavy = {"torch", "gradio", "diffusers", "transformers", "privacy_core", "datasets", "pyarrow"}
    assert "feedback.store.log" in modules
    assert not heavy & {name.split(".")[0] for name in modules}
    assert seconds < 1.5
