/* SPDX-License-Identifier: BSD-3-Clause */
/* bridge/turns.h */
#include "../../bridge/turns.h"
#include "unit.h"

enum { MANY = 1000000 };

static struct mqsync_turn turns[MANY];

START_TEST(first_come_first_served)
{
    struct mqsync_turns all = {0};

    for (int i = 0; i < 5; i++)
        mqsync_turns_enter(&all, &turns[i]);
    mqsync_turns_enter(&all, &turns[0]);
    mqsync_turns_leave(&all, &turns[4]);
    mqsync_turns_leave(&all, &turns[2]);
    mqsync_turns_leave(&all, &turns[2]);
    ck_assert_ptr_eq(mqsync_turns_take(&all), &turns[0]);
    mqsync_turns_enter(&all, &turns[2]);
    ck_assert_ptr_eq(mqsync_turns_take(&all), &turns[1]);
    ck_assert_ptr_eq(mqsync_turns_take(&all), &turns[3]);
    ck_assert_ptr_eq(mqsync_turns_take(&all), &turns[2]);
    ck_assert_ptr_null(all.first);
    ck_assert_ptr_null(all.last);
}
END_TEST

/* As many may wait as there are subscriptions, and their connections may close in any order. */
START_TEST(leaving_from_the_end_takes_no_time)
{
    struct mqsync_turns all = {0};

    for (int i = 0; i < MANY; i++)
        mqsync_turns_enter(&all, &turns[i]);
    for (int i = MANY; i-- > 0;)
        mqsync_turns_leave(&all, &turns[i]);
    ck_assert_ptr_null(all.first);
    ck_assert_ptr_null(all.last);
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("turns");
    tcase_add_test(c, first_come_first_served);
    tcase_add_test(c, leaving_from_the_end_takes_no_time);
    return run_tests("turns", c);
}
