/* SPDX-License-Identifier: BSD-3-Clause */
/* How a program of tests/unit ends. */
#ifndef MQSYNC_UNIT_H
#define MQSYNC_UNIT_H

#include <check.h>
#include <stdlib.h>

#define UNIT_SECONDS 120 /* for one test: it finds what hangs; how fast the machine is, is no test's business */

/* Runs the tests, which it frees; what main() is to return. */
static inline int run_tests(const char *name, TCase *tests)
{
    Suite *suite = suite_create(name);
    SRunner *runner = srunner_create(suite);
    tcase_set_timeout(tests, UNIT_SECONDS);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
