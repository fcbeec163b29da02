//! Tests of the test harness itself: the jar's rules, the app's habits, the helpers.

mod support;
