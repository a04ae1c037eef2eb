#include "perplexity_report.h"

#include <cjson/cJSON.h>
#include <math.h>

static const struct {
    double share;
    const char *title, *key;
} percentiles[PERCENTILES] = {
    {0.5, "median", "median"}, {0.9, "90 %", "p90"},  {0.99, "99 %", "p99"},
    {0.999, "99.9 %", "p999"}, {1, "maximum", "max"},
};

void perplexity_report_sum(struct perplexity_report *report, struct text_scores *scores) {
    uint32_t count = scores->count;
    report->scored = count;
    report->loss = estimate_mean(scores->loss, count);
    report->perplexity = estimate_exp(report->loss);
    report->compared = scores->base_loss != NULL;
    if (!report->compared)
        return;
    struct comparison *c = &report->comparison;
    c->base_perplexity = estimate_exp(estimate_mean(scores->base_loss, count));
    /* both predict the same tokens, so that of the differences is the error that counts */
    for (uint32_t i = 0; i < count; i++)
        scores->base_loss[i] = scores->loss[i] - scores->base_loss[i];
    c->log_ratio = estimate_mean(scores->base_loss, count);
    c->divergence = estimate_mean(scores->divergence, count);
    c->change = estimate_mean(scores->change, count);
    c->same_top = estimate_mean(scores->same_top, count);
    sort_values(scores->divergence, count);
    for (int i = 0; i < PERCENTILES; i++)
        c->percentiles[i] = percentile(scores->divergence, count, percentiles[i].share);
}

/* ---- For people ---- */

static void print_estimate(const char *title, struct estimate value, double factor,
                           const char *unit) {
    printf("%-20s %.6g%s", title, value.mean * factor, unit);
    if (isfinite(value.error)) /* one token has none */
        printf(" +/- %.4g%s", value.error * factor, unit);
    putchar('\n');
}

static void print_comparison(const struct comparison *c) {
    putchar('\n');
    print_estimate("base's perplexity", c->base_perplexity, 1, "");
    print_estimate("ln of their ratio", c->log_ratio, 1, "");
    print_estimate("KL divergence", c->divergence, 1, "");
    for (int i = 0; i < PERCENTILES; i++)
        printf("  %-18s %.6g\n", percentiles[i].title, c->percentiles[i]);
    print_estimate("same top token", c->same_top, 100, " %");
    print_estimate("change of p", c->change, 100, " %");
}

void perplexity_report_print(const struct perplexity_report *r) {
    print_estimate("perplexity", r->perplexity, 1, "");
    printf("%-20s %u of %zu tokens, in %zu window%s of %u\n", "scored", r->scored, r->tokens,
           r->windows, r->windows == 1 ? "" : "s", r->window);
    printf("%-20s %.2f s to read %zu tokens, %.1f tokens/s\n", "time", r->seconds, r->run,
           (double)r->run / r->seconds);
    if (r->compared)
        print_comparison(&r->comparison);
}

/* ---- For programs ---- */

static void add_estimate(cJSON *json, const char *key, const char *error_key,
                         struct estimate value) {
    cJSON_AddNumberToObject(json, key, value.mean);
    cJSON_AddNumberToObject(json, error_key, value.error); /* null where there is none */
}

static void add_comparison(cJSON *json, const struct comparison *c) {
    add_estimate(json, "base_perplexity", "base_perplexity_error", c->base_perplexity);
    add_estimate(json, "log_ratio", "log_ratio_error", c->log_ratio);
    add_estimate(json, "same_top", "same_top_error", c->same_top);
    add_estimate(json, "change", "change_error", c->change);
    cJSON *kl = cJSON_AddObjectToObject(json, "kl");
    add_estimate(kl, "mean", "error", c->divergence);
    for (int i = 0; i < PERCENTILES; i++)
        cJSON_AddNumberToObject(kl, percentiles[i].key, c->percentiles[i]);
}

bool perplexity_report_print_json(const struct perplexity_report *r) {
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "weights", r->weights);
    add_estimate(json, "perplexity", "perplexity_error", r->perplexity);
    add_estimate(json, "loss", "loss_error", r->loss);
    cJSON_AddNumberToObject(json, "tokens", (double)r->tokens);
    cJSON_AddNumberToObject(json, "scored", r->scored);
    cJSON_AddNumberToObject(json, "windows", (double)r->windows);
    cJSON_AddNumberToObject(json, "context", r->window);
    cJSON_AddNumberToObject(json, "stride", r->stride);
    cJSON_AddNumberToObject(json, "read", (double)r->run);
    cJSON_AddNumberToObject(json, "seconds", r->seconds);
    cJSON_AddNumberToObject(json, "tokens_per_second", (double)r->run / r->seconds);
    if (r->compared)
        add_comparison(json, &r->comparison);
    char *printed = cJSON_PrintUnformatted(json);
    if (printed)
        puts(printed);
    cJSON_Delete(json);
    bool good = printed != NULL;
    cJSON_free(printed);
    return good;
}
