"""service/ray_serve.py with a fixed number of replicas, on a Ray of this machine alone.

Run: python -m bench.peers.ray_gradserve REPLICAS PORT FOLDER
"""

import sys

import ray
from ray import serve

from service.ray_serve import Gradserve

if __name__ == "__main__":
    replicas, port, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    # A replica asks for one: as many as there are replicas, whatever the machine has.
    ray.init(num_cpus=replicas, include_dashboard=False, _temp_dir=folder)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    deployment = Gradserve.options(num_replicas=replicas, autoscaling_config=None)
    serve.run(deployment.bind(), blocking=True)
