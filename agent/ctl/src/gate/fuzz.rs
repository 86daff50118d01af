//! Properties of figures, whatever Prometheus answers.

use super::queries::Side;
use super::{Gate, judge, prometheus};
use crate::migration::Share;

/// An answer of Prometheus, and the judgment by it.
pub(crate) fn answer(body: &[u8]) {
    let Ok(told) = prometheus::parse(body) else { return };
    assert!(told.values().all(|number| number.is_finite()));
    let [vm, pods] = [Side::Vm, Side::Pods].map(|side| prometheus::of_side(&told, side));
    for is_whole in [false, true] {
        for share in [0, 1, 50, 100] {
            let share = Share::try_from(share).expect("it is a share");
            assert!(
                !judge(&Gate::default(), share, is_whole, vm, pods)
                    .because()
                    .contains('\n')
            );
        }
    }
}
