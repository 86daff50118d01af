//! The same calls to the VM and to the pods, and what differs in their answers.
//!
//! Each call is made several times, in turns. What differs between the VM's own answers is no difference of the pods.

mod difference;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod grpc;
mod http;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::migration::{Call, Verify};

/// Largest answer, in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// One side's answer to a call.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    /// HTTP's code, or gRPC's with its name.
    status: String,
    headers: BTreeMap<String, String>,
    body: Body,
}

#[derive(Clone, Debug, PartialEq)]
enum Body {
    Json(Value),
    Bytes(Vec<u8>),
}

/// Where both sides answer, `host:port`.
#[derive(Clone, Debug)]
pub(crate) struct Sides {
    pub(crate) vm: String,
    pub(crate) pods: String,
}

/// The differences in the answers to one call, in words.
///
/// # Errors
/// When the VM gives no answer: then there is nothing to compare with.
pub(crate) async fn differences(call: &Call, verify: &Verify, sides: &Sides) -> Result<Vec<String>> {
    let (mut of_vm, mut of_pods) = (Vec::new(), Vec::new());
    for _ in 0..verify.repeat.max(2) {
        let answer = ask(&sides.vm, call, verify).await;
        let about = || {
            format!(
                "{}: no answer of the VM at {}: name its address in verify.vm",
                call.name(),
                sides.vm
            )
        };
        of_vm.push(answer.with_context(about)?);
        match ask(&sides.pods, call, verify).await {
            Ok(answer) => of_pods.push(answer),
            Err(error) => return Ok(vec![format!("no answer of the pods at {}: {error:#}", sides.pods)]),
        }
    }
    let mut told = BTreeSet::new();
    // Of several pods each may have another version.
    for (pods, _) in &of_pods {
        for pair in of_vm.windows(2) {
            told.extend(difference::between([&pair[0].0, &pair[1].0], pods, verify, call));
        }
    }
    told.extend(slower(median(&of_vm), median(&of_pods), verify));
    Ok(told.into_iter().collect())
}

async fn ask(address: &str, call: &Call, verify: &Verify) -> Result<(Answer, Duration)> {
    let start = Instant::now();
    let answer = async {
        match (&call.grpc, &call.http) {
            (Some(path), _) => grpc::ask(address, path.as_str(), &call.message).await,
            (None, Some(path)) => http::ask(address, path.as_str(), call).await,
            (None, None) => Err(anyhow!("a call of nothing")),
        }
    };
    let answer = timeout(verify.timeout, answer).await;
    let answer = answer.map_err(|_| anyhow!("nothing within {}", humantime::format_duration(verify.timeout)))?;
    Ok((answer?, start.elapsed()))
}

fn median(answers: &[(Answer, Duration)]) -> Duration {
    let mut times: Vec<Duration> = answers.iter().map(|(_, time)| *time).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn slower(vm: Duration, pods: Duration, verify: &Verify) -> Option<String> {
    let is_slower = pods > vm + verify.latency_slack && pods > vm.mul_f64(verify.latency_ratio);
    is_slower.then(|| {
        format!(
            "half of the answers take more than {} ms, the VM's {} ms",
            pods.as_millis(),
            vm.as_millis()
        )
    })
}
