#!/usr/bin/env python3
"""Writes sampler_golden.json: tokens that the sampling chain must choose.

An independent, slow reading of the definitions in float64 with the standard library only: whole
sorts, no shortcuts. Logits, histories and draws come from Philox4x32-10, so that the file holds
parameters and tokens only. Cases where two tokens are nearly tied for winning, or where a
truncation limit is nearly hit, are dropped: f32 may legitimately decide them the other way.

Run: python3 make_sampler_golden.py > sampler_golden.json
"""
import json
import math
import random

MASK = 0xFFFFFFFF
CLOSE = 2e-5


class TooClose(Exception):
    pass


def philox(counter, key):
    c = list(counter)
    k = [key & MASK, key >> 32]
    for _ in range(10):
        p0, p2 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p2 >> 32) ^ c[1] ^ k[0], p2 & MASK, (p0 >> 32) ^ c[3] ^ k[1], p0 & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


def make_logits(n, seed):
    """Sum of four uniforms, scaled to about +-8: exact in f32 (multiples of 1/4096)."""
    out = []
    for i in range(n):
        words = philox([i, 0, 0, 77], seed)
        out.append((sum(w >> 19 for w in words) - 2 * 8192) / 2048.0)
    return out


def make_history(n, vocab, seed):
    """Few distinct tokens, so that repetitions occur."""
    alphabet = min(vocab, 7)
    return [philox([i, 0, 0, 78], seed)[0] % alphabet for i in range(n)]


def unit(word):
    return (word + 0.5) / 2.0**32


def close(a, b):
    return abs(a - b) < CLOSE * max(1.0, abs(a), abs(b))


def softmax(items):
    top = max(l for _, l in items)
    e = [math.exp(l - top) for _, l in items]
    total = sum(e)
    return [x / total for x in e]


def descending(items):
    return sorted(items, key=lambda it: (-it[1], it[0]))


def penalties(logits, history, n_prompt, p):
    last_n = p["repeat_last_n"]
    window = history if last_n < 0 else (history[-last_n:] if last_n else [])
    for t in set(window):
        r = p["repeat_penalty"]
        logits[t] = logits[t] * r if logits[t] <= 0 else logits[t] / r
    if p["penalize_prompt"]:
        counted = window
    else:
        n = min(len(window), len(history) - n_prompt)
        counted = window[len(window) - n:]
    for t in set(counted):
        logits[t] -= counted.count(t) * p["frequency_penalty"] + p["presence_penalty"]


def dry(logits, history, p, breakers):
    if p["dry_multiplier"] == 0 or p["dry_base"] < 1:
        return
    last_n = p["dry_last_n"]
    h = history if last_n < 0 else (history[-last_n:] if last_n else [])
    n, allowed = len(h), p["dry_allowed_length"]
    if n <= allowed:
        return
    limit = n
    for i in range(n):
        head = n - 1 - i
        best = -1
        for b in breakers:
            tail = b[1:]
            if b[0] == h[head] and len(tail) <= i and h[head + 1:head + 1 + len(tail)] == tail:
                best = max(best, len(tail))
        if best >= 0:
            limit = i - best
            break
    if limit < allowed:
        return
    longest = {}
    for e in range(n - 1):
        k = 0
        while k < limit and k <= e and h[e - k] == h[n - 1 - k]:
            k += 1
        if k >= allowed:
            longest[h[e + 1]] = max(longest.get(h[e + 1], 0), k)
    for t, k in longest.items():
        if [t] in breakers:
            continue
        logits[t] -= p["dry_multiplier"] * p["dry_base"] ** (k - allowed)


def cumulative(items, probs, p, strict):
    total = 0.0
    for i, q in enumerate(probs):
        total += q
        if close(total, p):
            raise TooClose
        if total > p if strict else total >= p:
            return items[:i + 1]
    return items


def choose(case, vocab):
    p = case["params"]
    logits = make_logits(vocab, case["logit_seed"])
    history = make_history(case["n_history"], vocab, case["logit_seed"])
    for t, bias in p["logit_bias"]:
        logits[t] += bias
    for t in case["banned"]:
        logits[t] = -math.inf
    if not p["mirostat"]:
        penalties(logits, history, case["n_prompt"], p)
        dry(logits, history, p, case["breakers"])
    items = [(i, l) for i, l in enumerate(logits) if l != -math.inf]
    seed, position = case["seed"], len(history)
    mu = case["mu"]
    if p["temperature"] <= 0:
        top = descending(items)
        if len(top) > 1 and top[0][1] != top[1][1] and close(top[0][1], top[1][1]):
            raise TooClose
        return top[0][0], mu
    if not p["mirostat"]:
        items = truncate(items, p, seed, position)
    # Temperature.
    temperature, d = p["temperature"], p["dynatemp_range"]
    if d > 0:
        if len(items) > 1:
            probs = softmax(items)
            entropy = -sum(q * math.log(q) for q in probs if q > 0)
            low, high = max(0.0, temperature - d), temperature + d
            temperature = low + (high - low) * (entropy / math.log(len(items))) ** p["dynatemp_exponent"]
        else:
            temperature = 1.0
    items = [(i, l / temperature) for i, l in items]
    if p["mirostat"]:
        items = mirostat(items, p, mu, vocab)
    # Exponential race.
    race = []
    for i, l in items:
        word = philox([i // 4, 0, position & MASK, position >> 32], seed)[i % 4]
        race.append((l - math.log(-math.log(unit(word))), i))
    race.sort(reverse=True)
    if len(race) > 1 and close(race[0][0], race[1][0]):
        raise TooClose
    token = race[0][1]
    if p["mirostat"]:
        prob = dict(zip([i for i, _ in items], softmax(items)))[token]
        mu -= p["mirostat_eta"] * (-math.log2(prob) - p["mirostat_tau"])
    return token, mu


def truncate(items, p, seed, position):
    if p["top_n_sigma"] > 0:
        mean = sum(l for _, l in items) / len(items)
        std = math.sqrt(sum((l - mean) ** 2 for _, l in items) / len(items))
        least = max(l for _, l in items) - p["top_n_sigma"] * std
        if any(close(l, least) for _, l in items):
            raise TooClose
        items = [it for it in items if it[1] >= least]
    items = descending(items)
    if p["top_k"] > 0:
        items = items[:p["top_k"]]
    if p["typical_p"] < 1:
        probs = softmax(items)
        entropy = -sum(q * math.log(q) for q in probs if q > 0)
        order = sorted(range(len(items)), key=lambda i: abs(-math.log(probs[i]) - entropy))
        gaps = [abs(-math.log(probs[i]) - entropy) for i in order]
        kept = cumulative([items[i] for i in order], [probs[i] for i in order], p["typical_p"], True)
        n = len(kept)
        if n < len(gaps) and close(gaps[n - 1], gaps[n]):
            raise TooClose
        items = descending(kept)
    if p["top_p"] < 1:
        items = cumulative(items, softmax(items), p["top_p"], False)
    if p["min_p"] > 0:
        least = items[0][1] + math.log(p["min_p"])
        if any(close(l, least) for _, l in items):
            raise TooClose
        items = [it for it in items if it[1] >= least]
    if p["xtc_probability"] > 0 and p["xtc_threshold"] <= 0.5 and len(items) >= 2:
        u = unit(philox([0, 1, position & MASK, position >> 32], seed)[0])
        if u <= p["xtc_probability"]:
            probs = softmax(items)
            if any(close(q, p["xtc_threshold"]) for q in probs):
                raise TooClose
            n = sum(q >= p["xtc_threshold"] for q in probs)
            if n > 1:
                items = items[n - 1:]
    return items


def mirostat(items, p, mu, vocab):
    items = descending(items)
    probs = softmax(items)
    if p["mirostat"] == 2:
        if any(close(-math.log2(q), mu) for q in probs if q > 0):
            raise TooClose
        kept = [it for it, q in zip(items, probs) if -math.log2(q) <= mu]
        return kept or items[:1]
    tb = tt = 0.0
    for i in range(min(100 - 1, len(items) - 1)):
        t = math.log((i + 2) / (i + 1))
        b = math.log(probs[i] / probs[i + 1])
        tb += t * b
        tt += t * t
    s = tb / tt
    e = s - 1
    k = (e * 2**mu / (1 - vocab ** (-e))) ** (1 / s)
    if close(k, round(k)):
        raise TooClose
    return items[:max(int(k), 1)]


DEFAULTS = dict(temperature=0.8, top_k=40, top_p=0.9, min_p=0.0, typical_p=1.0, top_n_sigma=-1.0,
                xtc_probability=0.0, xtc_threshold=0.1, dynatemp_range=0.0, dynatemp_exponent=1.0,
                repeat_last_n=64, repeat_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0,
                penalize_prompt=True, dry_multiplier=0.0, dry_base=1.75, dry_allowed_length=2,
                dry_last_n=-1, mirostat=0, mirostat_tau=5.0, mirostat_eta=0.1, logit_bias=[])


def random_params(rng, vocab):
    """Each sampler on with some probability; values that f32 holds exactly."""
    p = dict(DEFAULTS)
    p["temperature"] = rng.choice([0.0, 0.5, 0.75, 1.0, 1.0, 1.5, 2.0])
    p["top_k"] = rng.choice([0, 0, 1, 3, 10, 40, 200])
    p["top_p"] = rng.choice([1.0, 1.0, 0.0, 0.25, 0.5, 0.875, 0.96875])
    if rng.random() < 0.3:
        p["min_p"] = rng.choice([0.015625, 0.125, 0.5, 1.0])
    if rng.random() < 0.3:
        p["typical_p"] = rng.choice([0.125, 0.5, 0.875])
    if rng.random() < 0.25:
        p["top_n_sigma"] = rng.choice([0.5, 1.0, 2.0])
    if rng.random() < 0.3:
        p["xtc_probability"], p["xtc_threshold"] = rng.choice([0.5, 1.0]), rng.choice([0.03125, 0.125])
    if rng.random() < 0.25:
        p["dynatemp_range"], p["dynatemp_exponent"] = rng.choice([0.25, 0.5]), rng.choice([0.5, 1.0, 2.0])
    if rng.random() < 0.5:
        p["repeat_penalty"] = rng.choice([1.0, 1.25, 2.0])
        p["presence_penalty"] = rng.choice([0.0, 0.5, -0.5])
        p["frequency_penalty"] = rng.choice([0.0, 0.25])
        p["repeat_last_n"] = rng.choice([0, 4, 64, -1])
        p["penalize_prompt"] = rng.random() < 0.5
    if rng.random() < 0.35:
        p["dry_multiplier"], p["dry_base"] = rng.choice([0.5, 1.0]), rng.choice([1.25, 1.75])
        p["dry_allowed_length"], p["dry_last_n"] = rng.choice([1, 2, 3]), rng.choice([-1, 10, 30])
    if rng.random() < 0.3:
        p["mirostat"] = rng.choice([1, 2])
        p["mirostat_tau"] = rng.choice([2.0, 5.0])
    if rng.random() < 0.3:
        p["logit_bias"] = [[rng.randrange(vocab), rng.choice([-8.0, 2.0, 5.0])] for _ in range(2)]
    return p


def main():
    rng = random.Random(20240607)
    cases = []
    n_dropped = 0
    while len(cases) < 700:
        vocab = rng.choice([5, 64, 100, 1000, 1000])
        params = random_params(rng, vocab)
        case = dict(vocab=vocab, params=params, logit_seed=rng.randrange(2**32),
                    n_history=rng.choice([1, 5, 30, 80]), seed=rng.randrange(2**64),
                    banned=sorted(rng.sample(range(vocab), rng.choice([0, 0, 2]))),
                    breakers=rng.choice([[], [[0]], [[1, 2], [3]], [[0, 1], [0, 1, 2]]]),
                    mu=2 * params["mirostat_tau"])
        case["n_prompt"] = rng.randint(1, case["n_history"])
        try:
            case["token"], case["new_mu"] = choose(case, vocab)
        except TooClose:
            n_dropped += 1
            continue
        case["params"] = {k: v for k, v in params.items() if v != DEFAULTS[k]}
        cases.append(case)
    print('{"_made_by": "make_sampler_golden.py", "n_dropped": %d, "cases": [' % n_dropped)
    print(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases))
    print("]}")


main()
