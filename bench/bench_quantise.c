/* What each weight type costs: the speed of one thread, in bytes of bfloat16 for each element, and
 * the mean squared error over the mean square of normal, Laplace and Student's t weights (4 degrees
 * of freedom), in millionths. */
#include "blocks.h"
#include "reference/random.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

enum { COUNT = 1 << 18 };
enum shape { NORMAL, LAPLACE, STUDENT, SHAPES };

static float values[SHAPES][COUNT], restored[COUNT];
static uint8_t blocks[4 * COUNT];

static double draw(struct random *random, enum shape shape) {
    double normal = random_normal(random), squares = 0;
    switch (shape) {
    case LAPLACE:
        return (random_below(random, 2) ? 1 : -1) * log(1 - random_uniform(random));
    case STUDENT:
        for (int i = 0; i < 4; i++) {
            double other = random_normal(random);
            squares += other * other;
        }
        return normal / sqrt(squares / 4);
    default:
        return normal;
    }
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Repeated for a tenth of a second, three times; the fastest of them */
static double speed(enum weight_type type, void (*work)(enum weight_type type)) {
    double fastest = 0;
    for (int attempt = 0; attempt < 3; attempt++) {
        double begin = seconds(), now = begin;
        int rounds = 0;
        for (; now < begin + 0.1; rounds++) {
            work(type);
            now = seconds();
        }
        fastest = fmax(fastest, 2e-9 * COUNT * rounds / (now - begin));
    }
    return fastest;
}

static void quantise(enum weight_type type) {
    blocks_quantise(type, values[NORMAL], COUNT, blocks);
}

static void dequantise(enum weight_type type) {
    blocks_dequantise(type, blocks, COUNT, restored);
}

static double error_of(enum weight_type type, enum shape shape) {
    double error = 0, squares = 0;
    blocks_quantise(type, values[shape], COUNT, blocks);
    blocks_dequantise(type, blocks, COUNT, restored);
    for (int i = 0; i < COUNT; i++) {
        double value = values[shape][i], left = value - restored[i];
        squares += value * value;
        error += left * left;
    }
    return 1e6 * error / squares;
}

int main(void) {
    struct random random = random_start(1);
    for (int shape = 0; shape < SHAPES; shape++)
        for (int i = 0; i < COUNT; i++)
            values[shape][i] = (float)(0.02 * draw(&random, (enum shape)shape));
    printf("%-5s %6s %11s %13s %10s %10s %10s\n", "type", "bits", "to, GB/s", "from, GB/s",
           "normal", "Laplace", "t(4)");
    for (enum weight_type type = 0; type < WEIGHT_TYPE_COUNT; type++) {
        const struct weight_type_info *info = weight_type_info(type);
        double to = speed(type, quantise), from = speed(type, dequantise);
        printf("%-5s %6.4g %11.2f %13.2f", info->name, 8.0 * info->block_bytes / info->block, to,
               from);
        for (int shape = 0; shape < SHAPES; shape++)
            printf(" %10.4g", error_of(type, (enum shape)shape));
        putchar('\n');
    }
    return 0;
}
