/* The tests' own random numbers: xoshiro256** (Blackman and Vigna), the same on every machine for
 * one seed. */
#ifndef REFERENCE_RANDOM_H
#define REFERENCE_RANDOM_H

#include <stdint.h>

struct random {
    uint64_t state[4]; /* not all zero */
};

/* The environment variable PERIDOT_TEST_SEED (decimal), else another one each run, from
 * time and addresses. Callers print it, so that a failure can be repeated. A variable that is no
 * number ends the program with a message. */
uint64_t random_seed(void);

/* The state of a seed: four outputs of splitmix64. */
struct random random_start(uint64_t seed);

/* The state of random_seed(), which it prints for repeating a run. */
struct random random_announced(void);

uint64_t random_bits(struct random *random);                  /* 64 even bits */
double random_uniform(struct random *random);                 /* in [0, 1), multiples of 2^-53 */
uint64_t random_below(struct random *random, uint64_t bound); /* evenly in [0, bound), bound > 0 */
double random_normal(struct random *random);                  /* mean 0, variance 1 */

#endif
