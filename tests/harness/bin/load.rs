//! Calls a product catalogue and prints what came of it, one JSON line a call. SIGTERM: no more calls; those that
//! were made are waited for.

use std::time::Duration;

use clap::Parser;
use e2e::calls::Call;
use istio_api::hipstershop::GetProductRequest;
use istio_api::hipstershop::product_catalog_service_client::ProductCatalogServiceClient;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

#[derive(Clone, Debug, Parser)]
struct Args {
    /// host:port.
    #[arg(long)]
    target: String,
    /// The name that is called, if it is not the target.
    #[arg(long)]
    authority: Option<String>,
    /// Calls a second, whatever becomes of the earlier ones.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Calls in all.
    #[arg(long, default_value_t = 200)]
    count: u32,
    /// The product asked for.
    #[arg(long, default_value = "OLJCESPC7Z")]
    product: String,
    /// Calls at a time; those that would be more wait for others to end.
    #[arg(long, default_value_t = usize::MAX)]
    parallel: usize,
    /// Each call on a connection of its own.
    #[arg(long)]
    reconnect: bool,
    /// Milliseconds that a call may take.
    #[arg(long, default_value_t = 5000)]
    deadline: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let start = Instant::now();
    let shared = args.endpoint()?.connect_lazy();
    let mut ticks = interval(Duration::from_secs(1) / args.rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut term = signal(SignalKind::terminate())?;
    let mut running = JoinSet::new();
    for _ in 0..args.count {
        tokio::select! {
            _ = term.recv() => break,
            _ = ticks.tick() => {}
        }
        let channel = if args.reconnect {
            args.endpoint()?.connect_lazy()
        } else {
            shared.clone()
        };
        let of_it = args.clone();
        running.spawn(async move { call(channel, &of_it, start).await });
        while let Some(done) = running.try_join_next() {
            print(&done?)?;
        }
        if running.len() >= args.parallel
            && let Some(done) = running.join_next().await
        {
            print(&done?)?;
        }
    }
    while let Some(done) = running.join_next().await {
        print(&done?)?;
    }
    Ok(())
}

impl Args {
    fn endpoint(&self) -> anyhow::Result<Endpoint> {
        let authority = self.authority.as_ref().unwrap_or(&self.target);
        let endpoint = Endpoint::from_shared(format!("http://{}", self.target))?
            .origin(format!("http://{authority}").parse()?)
            .connect_timeout(Duration::from_millis(self.deadline));
        Ok(endpoint)
    }
}

async fn call(channel: Channel, args: &Args, start: Instant) -> Call {
    let at = start.elapsed();
    let request = Request::new(GetProductRequest {
        id: args.product.clone(),
    });
    let mut client = ProductCatalogServiceClient::new(channel);
    let answer = timeout(Duration::from_millis(args.deadline), client.get_product(request)).await;
    let took = start.elapsed().saturating_sub(at);
    let (code, message, caller) = match answer {
        Ok(Ok(response)) => {
            let caller = response
                .metadata()
                .get("x-caller")
                .and_then(|value| value.to_str().ok());
            (Code::Ok, String::new(), caller.map(str::to_owned))
        }
        Ok(Err(status)) => (status.code(), status.message().to_owned(), None),
        Err(_) => (Code::DeadlineExceeded, "no answer".to_owned(), None),
    };
    Call {
        at: at.as_secs_f64(),
        took: took.as_secs_f64(),
        code: format!("{code:?}"),
        message,
        caller,
    }
}

#[expect(clippy::print_stdout, reason = "this is what the program is for")]
fn print(call: &Call) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(call)?);
    Ok(())
}
