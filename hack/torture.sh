#!/usr/bin/env bash
# The long form of the torture suite: every fail point with every fault, hundreds of kills, engines that die. Writes its
# figures into docs/reliability.md. About a quarter of an hour on two cores.
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

export ONCELET_TORTURE=long
exec "$ROOT/hack/test.sh" --package oncelet-tests --test torture
