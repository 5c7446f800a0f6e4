#!/usr/bin/env bash
# Time to target of the quickstart under the joint policy and under uniform sampling, three seeds
# each: uniform over a grid of probabilities at full rank, and at rank 4. Usage:
#   benchmarks/joint_vs_uniform.sh OUT
# writes one run per folder OUT/POLICY-SEED, the table OUT/comparison.csv and the picture
# OUT/convergence.png.
set -euo pipefail
out=$1
scenario=$(dirname "$0")/../configs/quickstart.yaml

run() {
    local name=$1 seed=$2
    shift 2
    sim run "$scenario" --seed "$seed" --out "$out/$name-$seed" --quiet \
        --set "name=$name" --set stop.rounds=300 --set stop.simulated_s=3000 \
        --set stop.at_target=true --set training.threads=1 "$@"
}

every_policy() {
    local seed=$1 q
    for q in 0.034 0.05 0.1 0.2; do
        run "uniform-q$q" "$seed" --set "policy={name: uniform, min_probability: 0.02, probability: $q}"
    done
    run "uniform-q0.05-k4" "$seed" --set "policy={name: uniform, min_probability: 0.02, probability: 0.05, rank: 4}"
    run joint "$seed"
}

# One thread per seed, side by side: simulated time does not depend on the host's.
seeds=()
for seed in 1 2 3; do
    every_policy "$seed" &
    seeds+=($!)
done
for each in "${seeds[@]}"; do
    wait "$each"
done
sim compare "$out"/uniform-* "$out"/joint-* --csv "$out/comparison.csv"
# Speed-ups are against the first group, here uniform sampling at a low rank.
sim compare "$out"/uniform-q0.05-k4-* "$out"/joint-* --csv "$out/comparison-k4.csv"
sim plot "$out"/uniform-q0.034-[123] "$out"/joint-[123] -o "$out/convergence.png"
