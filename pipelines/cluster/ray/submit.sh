#!/usr/bin/env bash
# RAY_API_SERVER_ADDRESS=http://HEAD:8265 pipelines/cluster/ray/submit.sh /shared/project detect --in data/raw --out data/objects.parquet
#
# The folder is a project on a disk that all nodes of the cluster mount; what follows it is a data stage and its options.
# `ray job submit` needs the package ray[default] here, and `pip install 'taming[ray]'` on the nodes.
set -euo pipefail

folder=$1
shift
ray job submit -- bash -c "cd $(printf %q "$folder") && taming $(printf '%q ' "$@") --engine ray --ray-address auto"
