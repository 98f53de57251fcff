"""What each figure has to reach, said beside what it is."""

AT_LEAST = {
    "peft_1": 1.15,
    "peft_4": 1.45,
    "peft_16": 2.0,
    "peft_32": 2.7,
    "flat_32": 0.87,
    "mixed_over_base": 0.80,
    "base_over_generate": 1.15,
    "base_over_batching": 1.0,
    "llamacpp_32": 4.0,
    "alora_ttft_512": 8.0,
    "alora_ttft_2048": 20.0,
    "alora_16": 6.0,
    "forced_1": 2.0,
    "forced_8": 1.6,
    "forced_32": 1.3,
    "cliff_throughput": 0.9,
    "load": 5.0,
}
AT_MOST = {
    "malformed": 0.0,
    "cliff_ttft_p95": 1.5,
    "load_flat": 1.1,
    "prefill_beside_gap_p95": 2.0,
    "prefill_beside_ttft": 3.0,
    "flood_ttft_p95": 2.0,
    "ready_to_first_token_s": 1.0,
    "wrong rows": 0.0,
}
