#include "random.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t splitmix(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t random_seed(void) {
    const char *given = getenv("PERIDOT_TEST_SEED");
    if (given && *given) {
        char *end;
        errno = 0;
        uint64_t seed = strtoull(given, &end, 10);
        if (*end || errno) {
            fprintf(stderr, "PERIDOT_TEST_SEED is not a 64-bit number: %s\n", given);
            exit(1);
        }
        return seed;
    }
    struct timespec now = {0};
    timespec_get(&now, TIME_UTC);
    uint64_t mixed = (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
    mixed ^= (uint64_t)(uintptr_t)&now;   /* differs between processes begun at once */
    return splitmix(&mixed) % 1000000000; /* short enough to type again */
}

struct random random_start(uint64_t seed) {
    struct random random;
    for (int i = 0; i < 4; i++)
        random.state[i] = splitmix(&seed);
    return random;
}

struct random random_announced(void) {
    uint64_t seed = random_seed();
    printf("seed %llu\n", (unsigned long long)seed);
    return random_start(seed);
}

static uint64_t rotated(uint64_t x, int left) {
    return x << left | x >> (64 - left);
}

uint64_t random_bits(struct random *random) {
    uint64_t *s = random->state, result = rotated(s[1] * 5, 7) * 9, shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotated(s[3], 45);
    return result;
}

double random_uniform(struct random *random) {
    return (double)(random_bits(random) >> 11) * 0x1p-53;
}

uint64_t random_below(struct random *random, uint64_t bound) {
    /* the remainders of all 2^64 values are even once the first 2^64 mod bound are left out */
    uint64_t left_out = (UINT64_MAX - bound + 1) % bound, bits;
    do
        bits = random_bits(random);
    while (bits < left_out);
    return bits % bound;
}

/* Box and Muller's transform, of which only the cosine is used: no second value to keep. */
double random_normal(struct random *random) {
    double radius = sqrt(-2 * log(1 - random_uniform(random)));
    return radius * cos(6.28318530717958647693 * random_uniform(random));
}
