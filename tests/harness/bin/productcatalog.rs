//! The application of the cases: a product catalogue on `--port`.
//!
//! SIGUSR1 makes its gRPC health NOT_SERVING, SIGUSR2 SERVING again. The product `slow-MILLISECONDS` takes that long.
//! Every answer carries the caller as Envoy names it (x-forwarded-client-cert) in `x-caller`, and a request that
//! came past Envoy has none. There is no product `none`. With `--fault` it is another version.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use istio_api::health::health_check_response::ServingStatus;
use istio_api::health::health_server::{Health, HealthServer};
use istio_api::health::{HealthCheckRequest, HealthCheckResponse};
use istio_api::hipstershop::product_catalog_service_server::{ProductCatalogService, ProductCatalogServiceServer};
use istio_api::hipstershop::{
    Empty, GetProductRequest, ListProductsResponse, Product, SearchProductsRequest, SearchProductsResponse,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Server;
use tonic::{Request, Response, Status, async_trait};

/// A version that differs from the others.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Fault {
    /// In a product's name.
    Data,
    /// In the error about a product that there is not.
    Code,
    /// In a header of its answers.
    Header,
    /// In the time of its answers.
    Latency,
    /// In a method, which it has not.
    Method,
    /// In every twentieth answer, which is an error.
    Failing,
}

#[derive(Debug, Parser)]
struct Args {
    /// Where it listens, on all addresses.
    #[arg(long, default_value_t = 3550)]
    port: u16,
    #[arg(long)]
    fault: Option<Fault>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let serving = Arc::new(AtomicBool::new(true));
    let mut sick = signal(SignalKind::user_defined1())?;
    let mut well = signal(SignalKind::user_defined2())?;
    let mut term = signal(SignalKind::terminate())?;
    let shared = Arc::clone(&serving);
    let stop = async move {
        loop {
            tokio::select! {
                _ = sick.recv() => shared.store(false, Ordering::Relaxed),
                _ = well.recv() => shared.store(true, Ordering::Relaxed),
                _ = term.recv() => return,
            }
        }
    };
    let catalog = Catalog {
        fault: args.fault,
        answers: AtomicU32::new(0),
    };
    Server::builder()
        .add_service(HealthServer::new(Probe(serving)))
        .add_service(ProductCatalogServiceServer::new(catalog))
        .serve_with_shutdown(SocketAddr::from((Ipv6Addr::UNSPECIFIED, args.port)), stop)
        .await?;
    Ok(())
}

#[derive(Debug)]
struct Probe(Arc<AtomicBool>);

#[async_trait]
impl Health for Probe {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let serving = self.0.load(Ordering::Relaxed);
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watch"))
    }
}

#[derive(Debug)]
struct Catalog {
    fault: Option<Fault>,
    answers: AtomicU32,
}

#[async_trait]
impl ProductCatalogService for Catalog {
    async fn list_products(&self, request: Request<Empty>) -> Result<Response<ListProductsResponse>, Status> {
        let products = vec![product("OLJCESPC7Z"), product("66VCHSJNUP")];
        Ok(with_caller(request, ListProductsResponse { products }))
    }

    async fn get_product(&self, request: Request<GetProductRequest>) -> Result<Response<Product>, Status> {
        let id = request.get_ref().id.clone();
        if let Some(millis) = id.strip_prefix("slow-").and_then(|rest| rest.parse().ok()) {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        if id == "none" {
            return Err(match self.fault {
                Some(Fault::Code) => Status::internal("no such product"),
                _ => Status::not_found("no such product"),
            });
        }
        let count = self.answers.fetch_add(1, Ordering::Relaxed);
        if self.fault == Some(Fault::Failing) && count % 20 == 19 {
            return Err(Status::internal("one in twenty"));
        }
        if self.fault == Some(Fault::Latency) {
            tokio::time::sleep(Duration::from_millis(800)).await;
        }
        let mut product = product(&id);
        if self.fault == Some(Fault::Data) {
            product.name = "Sunblind".to_owned();
        }
        let mut response = with_caller(request, product);
        let version = if self.fault == Some(Fault::Header) { "2" } else { "1" };
        response
            .metadata_mut()
            .insert("x-version", MetadataValue::from_static(version));
        Ok(response)
    }

    async fn search_products(
        &self,
        request: Request<SearchProductsRequest>,
    ) -> Result<Response<SearchProductsResponse>, Status> {
        if self.fault == Some(Fault::Method) {
            return Err(Status::unimplemented("search_products"));
        }
        let results = vec![product(&request.get_ref().query)];
        Ok(with_caller(request, SearchProductsResponse { results }))
    }
}

fn product(id: &str) -> Product {
    Product {
        id: id.to_owned(),
        name: "Sunglasses".to_owned(),
        categories: vec!["accessories".to_owned()],
        ..Product::default()
    }
}

fn with_caller<Q, R>(request: Request<Q>, answer: R) -> Response<R> {
    let mut response = Response::new(answer);
    if let Some(caller) = request.metadata().get("x-forwarded-client-cert") {
        response.metadata_mut().insert("x-caller", caller.clone());
    }
    response
}
