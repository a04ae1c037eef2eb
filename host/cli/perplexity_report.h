/* The figures over all tokens of a text, as a table for people and as JSON. */
#ifndef CLI_PERPLEXITY_REPORT_H
#define CLI_PERPLEXITY_REPORT_H

#include "divergence.h"
#include "text_scores.h"

#include <stdio.h>

#define PERCENTILES 5 /* see perplexity_report.c; the last is the maximum */

struct comparison {
    struct estimate base_perplexity, log_ratio; /* ln(perplexity / base's) */
    struct estimate divergence, change, same_top;
    double percentiles[PERCENTILES]; /* of the divergence */
};

struct perplexity_report {
    const char *weights; /* their type */
    struct estimate loss, perplexity;
    uint32_t scored, window, stride;
    size_t tokens, windows, run; /* in the text; read by the model, <bos> included */
    double seconds;
    bool compared;
    struct comparison comparison;
};

/* Fills in loss, perplexity and, beside a base, the comparison. The scores are used up. */
void perplexity_report_sum(struct perplexity_report *report, struct text_scores *scores);
void perplexity_report_print(const struct perplexity_report *report);
/* False without memory. */
bool perplexity_report_print_json(const struct perplexity_report *report);

#endif
