#!/bin/sh
# Tunes step and momentum of gradient descent on Rosenbrock's valley: curl asks and tells, awk descends.
set -eu
trials=${TRIALS:-12}

call() { # METHOD PATH BODY [KEY]
  curl --silent --show-error --fail-with-body --retry 5 --retry-connrefused -X "$1" "$ADVISOR_URL$2" \
    -H "Authorization: Bearer $ADVISOR_TOKEN" -H "Content-Type: application/json" \
    ${4:+-H "Idempotency-Key: $4"} --data "$3"
}
field() { printf '%s' "$1" | sed -n "s/.*\"$2\":\"\{0,1\}\([^,\"}]*\).*/\1/p"; }

space='{"step":{"name":"FloatDistribution","attributes":{"low":1e-5,"high":1e-2,"log":true,"step":null}},
        "momentum":{"name":"FloatDistribution","attributes":{"low":0,"high":0.99,"log":false,"step":null}}}'
study=$(field "$(call POST /v1/studies "{\"name\":\"valley\",\"trials\":$trials,\"space\":$space}")" id)

i=0
while :; do
  i=$((i + 1))
  trial=$(call POST "/v1/studies/$study/trials" '{"worker":"sh"}' "$study-$i")
  number=$(field "$trial" number)
  [ -n "$number" ] || break
  value=$(awk -v step="$(field "$trial" step)" -v momentum="$(field "$trial" momentum)" 'BEGIN {
    x = -1; y = 1; u = v = 0
    for (i = 0; i < 2000; i++) {
      dx = -2 * (1 - x) - 400 * x * (y - x * x); dy = 200 * (y - x * x)
      u = momentum * u - step * dx; v = momentum * v - step * dy; x += u; y += v
      if (x * x + y * y > 1e6) { print 1e6; exit }
    }
    print (1 - x) ^ 2 + 100 * (y - x * x) ^ 2 }')
  call POST "/v1/studies/$study/trials/$number/complete" "{\"value\":$value}" >/dev/null
done
best=$(curl --silent --fail "$ADVISOR_URL/v1/studies/$study/best" -H "Authorization: Bearer $ADVISOR_TOKEN")
echo "best of $trials: $(field "$best" value) with step $(field "$best" step), momentum $(field "$best" momentum)"
