/* Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): random words that are
 * a function of a counter and a key, so that a draw depends on nothing but seed, position and token. */
uvec4 philox(uvec4 counter, uvec2 key) {
    for (uint round = 0; round < 10; round++) {
        uint high0, low0, high1, low1;
        umulExtended(0xD2511F53u, counter.x, high0, low0);
        umulExtended(0xCD9E8D57u, counter.z, high1, low1);
        counter = uvec4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
        key += uvec2(0x9E3779B9u, 0xBB67AE85u);
    }
    return counter;
}

/* An exponential variate, -log(1 - u), with full relative precision where u is small. */
float exponential(uint word) {
    float u = (float(word) + 0.5) * 2.3283064365386963e-10;
    float series = u * (1.0 + u * (0.5 + u * (1.0 / 3.0 + u * (0.25 + u * 0.2))));
    return u < 0.03 ? series : -log(max(1.0 - u, 1e-10));
}
