/* The budget of a slice on a GPU whose times are made up (simulated_gpu.h): they drift and spike,
 * become ten times longer, or are told as zero; no call waits, and no text changes. */
#include "adopt_shim.h"
#include "conformance.h"
#include "must.h"
#include "peridot.h"
#include "reference/random.h"
#include "simulated_gpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FRAMES 2000
#define LEARNING 20 /* frames */
#define FAR_OFF 1000000u

static peridot_device *device;
static peridot_model *model;

static const int32_t prompt[] = {2, 38, 119, 342, 171, 231, 170, 230, 11, 261, 355, 17};
#define PROMPT_COUNT (sizeof prompt / sizeof *prompt)

static const struct simulated_gpu steady = {
    .group_least = 5e-6,
    .group_most = 100e-6,
    .noise = 0.05,
    .spike_chance = 0.0015,
    .spike_factor = 1.8,
    .drift = 0.4,
    .drift_period = 400,
    .slower = 1,
    .latency = 2,
};

static int open_all(void **state) {
    (void)state;
    const char *why = adopt_shim_open();
    if (why)
        fail_msg("%s", why);
    struct device_adoption app = adopt_shim_adoption();
    uint64_t seed = random_seed();
    print_message("seed %llu\n", (unsigned long long)seed);
    peridot_adoption adoption = {
        .struct_size = sizeof adoption,
        .instance = app.instance,
        .physical_device = app.physical,
        .device = app.device,
        .get_instance_proc_addr = simulated_gpu_open(
            app.get_instance_proc_addr, adopt_shim_loader(), app.instance, app.device, seed),
        .queue = app.queue,
        .queue_family = app.queue_family,
        .lock_queue = app.callbacks.lock_queue,
        .unlock_queue = app.callbacks.unlock_queue,
    };
    peridot_device_params params = {.struct_size = sizeof params, .cache_directory = ""};
    MUST(peridot_device_adopt(&adoption, &params, &device, &error));
    MUST(peridot_model_load_wait(device, path_of("small-f32"), NULL, &model, &error));
    return 0;
}

static int close_all(void **state) {
    (void)state;
    peridot_model_close(model);
    peridot_device_close(device);
    simulated_gpu_close();
    bool sound = adopt_shim_sound(true);
    adopt_shim_close();
    return sound ? 0 : -1;
}

struct text {
    int32_t tokens[FRAMES];
    uint32_t count;
};

static bool take(const peridot_token *token, void *user) {
    struct text *text = user;
    text->tokens[text->count++] = token->token;
    return text->count < FRAMES;
}

#define CHARACTERS 4

/* A conversation without an end, or a batch of them, and how its slices kept to the budget. */
struct run {
    peridot_session *session;
    peridot_batch *batch; /* NULL: none */
    peridot_session *characters[CHARACTERS];
    struct text text;
    uint32_t frames, slices, over; /* after the frames of learning */
    double worst;                  /* share of the budget */
    double used;                   /* mean share */
};

static peridot_session *open_session(uint64_t own_seed) {
    peridot_session *session;
    peridot_sampling sampling = {
        .struct_size = sizeof sampling, .temperature = 1, .min_tokens = FAR_OFF, .seed = own_seed};
    MUST(peridot_session_create(model, NULL, &session, &error));
    MUST(peridot_session_sampling(session, &sampling, &error));
    return session;
}

static bool take_of(uint32_t character, const peridot_token *token, void *user) {
    return character || take(token, user);
}

/* One of them says little. Their prompts are the batch's to run. */
static void begin_batch(struct run *run, const struct simulated_gpu *gpu) {
    static const uint32_t counts[CHARACTERS] = {FAR_OFF, 20, FAR_OFF, FAR_OFF};
    peridot_batch_work work = {sizeof work, counts, take_of, &run->text};
    memset(run, 0, sizeof *run);
    simulated_gpu_model(gpu);
    for (uint32_t i = 0; i < CHARACTERS; i++) {
        peridot_work said = {sizeof said, prompt, PROMPT_COUNT - i, 0, NULL, NULL, NULL};
        run->characters[i] = open_session(i);
        MUST(peridot_session_start(run->characters[i], &said, &error));
        peridot_session_cancel(run->characters[i]);
    }
    MUST(peridot_batch_create(run->characters, CHARACTERS, &run->batch, &error));
    MUST(peridot_batch_start(run->batch, &work, &error));
    simulated_gpu_start();
}

static peridot_result advance_run(const struct run *run, const peridot_advance *advance,
                                  peridot_slice_plan *slice, peridot_error *error) {
    return run->batch ? peridot_batch_advance(run->batch, advance, slice, error)
                      : peridot_session_advance(run->session, advance, slice, error);
}

static bool poll_run(const struct run *run) {
    peridot_work_status status = {.struct_size = sizeof status};
    peridot_batch_status of_batch = {.struct_size = sizeof of_batch};
    if (run->batch)
        MUST(peridot_batch_poll(run->batch, &of_batch, &error));
    else
        MUST(peridot_session_poll(run->session, &status, &error));
    return status.active || of_batch.active;
}

static void begin(struct run *run, const struct simulated_gpu *gpu) {
    memset(run, 0, sizeof *run);
    simulated_gpu_model(gpu);
    run->session = open_session(0);
    peridot_work work = {sizeof work, prompt, PROMPT_COUNT, FAR_OFF, take, &run->text, NULL};
    MUST(peridot_session_start(run->session, &work, &error));
    simulated_gpu_start();
}

static void do_frames(struct run *run, uint32_t frames, float budget_ms, uint32_t uncounted) {
    peridot_advance advance = {.struct_size = sizeof advance, .budget_ms = budget_ms};
    for (uint32_t i = 0; i < frames; i++) {
        peridot_slice_plan slice = {.struct_size = sizeof slice};
        peridot_error error = {0};
        uint32_t before = simulated_gpu_submissions();
        peridot_result result = advance_run(run, &advance, &slice, &error);
        if (result < 0)
            fail_msg("%s", error.message);
        assert_int_equal(simulated_gpu_submissions() - before, result == PERIDOT_OK);
        if (result == PERIDOT_OK && i >= uncounted) {
            double share = simulated_gpu_last() * 1e3 / budget_ms;
            run->slices++;
            run->over += share > 1.25;
            run->used += share;
            run->worst = share > run->worst ? share : run->worst;
        }
        simulated_gpu_next_frame();
        assert_true(poll_run(run));
    }
    run->frames += frames;
}

/* Lets what is in flight be seen, and closes without a wait. */
static void end(struct run *run) {
    while (peridot_batch_close(run->batch) == PERIDOT_NOT_READY)
        simulated_gpu_next_frame();
    while (peridot_session_close(run->session) == PERIDOT_NOT_READY)
        simulated_gpu_next_frame();
    simulated_gpu_stop();
    for (uint32_t i = 0; i < CHARACTERS; i++) /* what they submitted was before the simulation */
        while (peridot_session_close(run->characters[i]) == PERIDOT_NOT_READY)
            continue;
}

static void show(const char *what, const struct run *run, float budget_ms) {
    print_message("%-14s %g ms: %u slices, %.2f %% over 1.25 budgets, at most %.2f, mean %.2f; "
                  "%u tokens\n",
                  what, budget_ms, run->slices, 100.0 * run->over / run->slices, run->worst,
                  run->used / run->slices, run->text.count);
}

static void test_drift_and_spikes(void **state) {
    (void)state;
    static struct run runs[3];
    static const float budgets[] = {1, 2, 4};
    for (int i = 0; i < 3; i++) {
        begin(&runs[i], &steady);
        do_frames(&runs[i], FRAMES, budgets[i], LEARNING);
        show("drift, spikes", &runs[i], budgets[i]);
        assert_true(runs[i].slices >= (FRAMES - LEARNING) * 9 / 10);
        assert_true(runs[i].over * 100 <= runs[i].slices);
        assert_true(runs[i].used / runs[i].slices > 0.5);
        assert_true(runs[i].text.count > 2);
        end(&runs[i]);
    }
    for (int i = 0; i < 2; i++) {
        uint32_t both = runs[i].text.count < runs[i + 1].text.count ? runs[i].text.count
                                                                    : runs[i + 1].text.count;
        assert_memory_equal(runs[i].text.tokens, runs[i + 1].text.tokens, both * sizeof(int32_t));
    }
}

static void test_batch(void **state) {
    (void)state;
    static struct run run;
    begin_batch(&run, &steady);
    do_frames(&run, FRAMES, 2, LEARNING);
    show("batch", &run, 2);
    assert_true(run.over * 100 <= run.slices);
    assert_true(run.used / run.slices > 0.5);
    assert_true(run.text.count > 20);
    end(&run);
}

/* All at once everything takes ten times as long. */
static void test_ten_times_slower(void **state) {
    (void)state;
    static struct run run;
    struct simulated_gpu even = steady;
    even.spike_chance = 0; /* too few frames for spikes to be rare */
    begin(&run, &even);
    do_frames(&run, 200, 8, 200);
    simulated_gpu_slow_down(10);
    do_frames(&run, 500, 8, LEARNING);
    show("slowed down", &run, 8);
    assert_true(run.over * 100 <= run.slices);
    end(&run);
}

/* Another program takes the device for long times, again and again: what is learned is not lost. */
static void test_preemption(void **state) {
    (void)state;
    static struct run run;
    struct simulated_gpu busy = steady;
    busy.spike_chance = 0.2;
    busy.spike_factor = 60;
    begin(&run, &busy);
    do_frames(&run, FRAMES, 2, LEARNING);
    show("preempted", &run, 2);
    /* slices stay as large as they may be, so those that are preempted take long; where every spike
     * is learned they shrink, and the mean is near 1 */
    assert_true(run.used / run.slices > 2);
    assert_true(run.text.count > 20);
    end(&run);
}

/* The clock stands still, or passes its end: no harm is done, and work goes on. */
static void test_odd_clocks(void **state) {
    (void)state;
    static struct run run;
    struct simulated_gpu odd = steady;
    odd.zero = true;
    odd.spike_chance = 0;
    begin(&run, &odd);
    do_frames(&run, 500, 4, 0);
    show("no clock", &run, 4);
    assert_true(run.text.count > 0);
    end(&run);
    odd.zero = false;
    odd.start = UINT64_MAX - 300000000; /* 0.3 s on */
    begin(&run, &odd);
    do_frames(&run, 500, 4, LEARNING);
    show("wrapping clock", &run, 4);
    assert_true(run.over * 100 <= run.slices);
    assert_true(run.used / run.slices > 0.5);
    end(&run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drift_and_spikes), cmocka_unit_test(test_batch),
        cmocka_unit_test(test_ten_times_slower), cmocka_unit_test(test_preemption),
        cmocka_unit_test(test_odd_clocks),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
