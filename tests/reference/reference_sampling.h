/* The sampler's distribution on the CPU, in double precision, by sorting: what the GPU must draw
 * from. */
#ifndef REFERENCE_SAMPLING_H
#define REFERENCE_SAMPLING_H

#include "peridot.h"

/* Probabilities [vocabulary] of the next token after logits [vocabulary], with the recent tokens
 * that the penalty counts. Penalty, top-k, top-p and min-p at temperature 1, then temperature; ties
 * to the lower id. `suppressed` tokens (may be NULL) are never drawn. */
void reference_sampling(const float *logits, uint32_t vocabulary, const int32_t *recent,
                        uint32_t recent_count, const int32_t *suppressed, uint32_t suppressed_count,
                        const peridot_sampling *sampling, double *probabilities);

/* The chance of a chi-square statistic at least as large, from counts of `draws` draws and
 * probabilities; cells that expect fewer than five are pooled. */
double chi_square_p(const uint32_t *counts, const double *probabilities, uint32_t cells,
                    uint32_t draws);

#endif
