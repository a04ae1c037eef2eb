/* PERIDOT_TEST_ONLY=PATTERN: the tests of a group that are to run, as cmocka's filter takes it. */
#ifndef TESTS_TEST_FILTER_H
#define TESTS_TEST_FILTER_H

#include <stdlib.h>

/* Needs cmocka.h. */
#define TAKE_TEST_FILTER()                                                                         \
    do {                                                                                           \
        const char *only = getenv("PERIDOT_TEST_ONLY");                                            \
        if (only && *only)                                                                         \
            cmocka_set_test_filter(only);                                                          \
    } while (0)

#endif
