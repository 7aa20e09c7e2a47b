#!/bin/sh
# Runs the package on a Linux host that has neither Node nor a network, out of the bundle that this file lies in:
#
#   ./.gpu/run test [webgpu] [FILE...] [--name PATTERN]   the GPU tests: conformance, golden, training, decode, memory
#   ./.gpu/run bench [webgpu] [OPTIONS]          matmamba bench gpu, or webgpu
#   ./.gpu/run matmamba ARGUMENTS                the command line
#   ./.gpu/run node SCRIPT.mjs [ARGUMENTS]       a script, which may import 'matmamba' and ../dist
#
# The first use unpacks into $MATMAMBA_GPU_HOME (default /tmp/matmamba-gpu), and again when the bundle has changed.
# Models, goldens and examples are read from the checkout around the bundle, or the one that $MATMAMBA_CHECKOUT names.
set -eu
bundle=$(cd "$(dirname "$0")" && pwd)
checkout=${MATMAMBA_CHECKOUT:-$(dirname "$bundle")}
home=${MATMAMBA_GPU_HOME:-/tmp/matmamba-gpu}

unpacked() {
  if command -v xz >/dev/null 2>&1; then xz -dc "$1"
  elif command -v python3 >/dev/null 2>&1; then
    python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer, 1 << 20)' "$1"
  else
    echo "matmamba: unpacking needs xz or python3, and this host has neither" >&2
    return 1
  fi
}

# fresh PART: whether the work folder holds this bundle's node or app.
fresh() { [ -f "$home/$1.sha256" ] && cmp -s "$bundle/$1.sha256" "$home/$1.sha256"; }

# put PART FOLDER: a new folder takes the old one's place in one rename, then the stamp says so.
put() {
  rm -rf "$home/$1.sha256" "$home/$1"
  mv -T "$2" "$home/$1"
  cp "$bundle/$1.sha256" "$home/$1.sha256"
}

mkdir -p "$home"
new=
trap '[ -z "$new" ] || rm -rf "$new"' EXIT
if ! fresh node; then
  new="$home/node.$$"
  mkdir -p "$new"
  unpacked "$bundle/node.xz" >"$new/node"
  chmod +x "$new/node"
  put node "$new"
fi
if ! fresh app; then
  new="$home/app.$$"
  mkdir -p "$new"
  unpacked "$bundle/app.tar.xz" | tar -xf - -C "$new"
  put app "$new"
fi
for name in models examples package.json test/golden; do
  if [ -e "$checkout/$name" ]; then ln -sfn "$checkout/$name" "$home/app/$name"; else rm -f "$home/app/$name"; fi
done
if [ ! -e "$home/app/package.json" ]; then
  echo "matmamba: $checkout is no checkout of the repository; name one in MATMAMBA_CHECKOUT" >&2
  exit 2
fi

PATH="$home/node:$PATH"
MATMAMBA_CHECKOUT=$checkout
export PATH MATMAMBA_CHECKOUT
command=${1:-}
[ $# -eq 0 ] || shift
case $command in
  test) exec node "$home/app/test/gpu/main.js" "$@" ;;
  bench)
    case ${1:-} in webgpu) ;; *) set -- gpu "$@" ;; esac
    exec node "$home/app/dist/cli/main.js" bench "$@"
    ;;
  matmamba) exec node "$home/app/dist/cli/main.js" "$@" ;;
  node) exec node --import "$home/app/resolve.mjs" "$@" ;;
  *)
    sed -n '2,7s/^# \{0,1\}//p' "$0"
    [ -z "$command" ] && exit 0
    echo "matmamba: there is no command '$command'" >&2
    exit 2
    ;;
esac
