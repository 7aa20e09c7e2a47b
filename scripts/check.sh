#!/usr/bin/env bash
# Installs what the tests need and runs format, lint, types, build and every test. Ends with a line of counts.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ ! -d node_modules ]; then npm ci; fi

# A system BLAS for the tests of the BLAS path; without the right to install, those tests say that they were skipped.
if ! ldconfig -p 2>/dev/null | grep -q libopenblas && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq libopenblas0-pthread >/dev/null || echo "no BLAS could be installed"
fi

npm run --silent format:check
npm run --silent lint
npm run --silent build
npm run --silent types
node scripts/write-ops-table.mjs --check
npm test
