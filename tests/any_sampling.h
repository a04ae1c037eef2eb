/* Sampling settings at random, of every kind. */
#ifndef TESTS_ANY_SAMPLING_H
#define TESTS_ANY_SAMPLING_H

#include "peridot.h"
#include "reference/random.h"

peridot_sampling any_sampling(struct random *generator);

#endif
