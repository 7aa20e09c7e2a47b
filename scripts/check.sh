#!/usr/bin/env bash
# Installs what the tests need and runs format, lint, types, build and every test. Ends with a line of counts.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ ! -d node_modules ]; then npm ci; fi

# A system BLAS, MPI, xz, a C++ compiler (it makes the emulated GPU) and Chromium (its software adapter) for the tests that use them; without the right to install, those tests say that they were skipped.
missing=""
ldconfig -p 2>/dev/null | grep -q libopenblas || missing="$missing libopenblas0-pthread"
command -v mpirun >/dev/null || missing="$missing openmpi-bin"
command -v xz >/dev/null || missing="$missing xz-utils"
command -v g++ >/dev/null || missing="$missing g++"
[ -f /usr/lib/chromium/vk_swiftshader_icd.json ] || missing="$missing chromium"
ldconfig -p 2>/dev/null | grep -q libvulkan.so.1 || missing="$missing libvulkan1"
if [ -n "$missing" ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null || echo "could not install:$missing"
fi

npm run --silent format:check
npm run --silent lint
npm run --silent build
npm run --silent types
node scripts/write-ops-table.mjs --check
npm test
