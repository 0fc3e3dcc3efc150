#!/bin/bash
# Make the image regard-base from Debian's packages, where no registry of images can be reached:
#
#     deploy/docker/base.sh build/image    # needs root, buildah and debootstrap
#     make image BASE=localhost/regard-base
#
# Where buildah may neither mount overlays nor start containers, as within one, set STORAGE_DRIVER=vfs
# and BUILDAH_ISOLATION=chroot.
set -euo pipefail
directory=${1:?where to build}
root=$directory/rootfs

mkdir -p "$directory"
if [ ! -e "$root/usr/bin/python3" ] || [ -e "$root/debootstrap" ]; then # which it removes at its end
    rm -rf "$root"
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv \
        "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$root" >"$directory/debootstrap.log"
fi

container=$(buildah from scratch)
trap 'buildah rm "$container" >/dev/null' EXIT
buildah copy --quiet "$container" "$root" /
buildah commit --quiet "$container" regard-base
