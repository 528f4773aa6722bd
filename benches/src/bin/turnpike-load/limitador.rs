//! Limitador's checks in memory behind HTTP, as its own server has them (actix, a task for each request, a map of the values), but
//! without what that adds: OpenAPI, spans, metrics. It takes the same request as the engine.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};

use actix_web::web::{Data, Json};
use actix_web::{App, HttpResponse, HttpServer, web};
use limitador::RateLimiter;
use limitador::limit::{Context, Limit, Namespace};
use serde::Deserialize;

use crate::Failure;
use crate::engine::key_of;

/// Counters that are kept in memory at the most.
const COUNTERS_MAX: u64 = 100_000;
/// Customers that have a counter of each feature from the start, as those of the engine have.
const CUSTOMERS: u32 = 10_000;
const FEATURES: u32 = 3;
const NAMESPACE: &str = "load";

#[derive(Deserialize)]
struct CheckRequest {
    customer: String,
    feature: String,
    amount: String,
}

/// Serves in threads of its own, as many as there are processors.
pub fn serve() -> Result<SocketAddr, Failure> {
    let limiter = Data::new(limiter()?);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let workers = std::thread::available_parallelism()?.get();
    std::thread::spawn(move || {
        let server = HttpServer::new(move || {
            App::new()
                .app_data(Data::clone(&limiter))
                .default_service(web::to(check))
        });
        let server = server.workers(workers).listen(listener)?;
        actix_web::rt::System::new().block_on(server.run())
    });
    Ok(address)
}

/// One limit for each customer and feature, which is never reached.
fn limiter() -> Result<RateLimiter, Failure> {
    let limiter = RateLimiter::new(COUNTERS_MAX);
    let variables = ["descriptors[0].customer", "descriptors[0].feature"]
        .into_iter()
        .map(|variable| variable.try_into())
        .collect::<Result<Vec<_>, limitador::limit::ParseError>>()
        .map_err(|error| error.to_string())?;
    limiter.add_limit(Limit::new(
        NAMESPACE,
        1_000_000_000,
        30 * 86_400,
        Vec::new(),
        variables,
    ));
    for customer in (0..CUSTOMERS).map(key_of) {
        for feature in 0..FEATURES {
            let asked = context(customer.clone(), format!("feature_{feature}"));
            let counted = limiter.update_counters(&NAMESPACE.into(), &asked, 1);
            counted.map_err(|error| error.to_string())?;
        }
    }
    Ok(limiter)
}

fn context(customer: String, feature: String) -> Context<'static> {
    let values = HashMap::from([("customer".to_owned(), customer), ("feature".to_owned(), feature)]);
    let mut context = Context::default();
    context.list_binding("descriptors".to_owned(), vec![values]);
    context
}

async fn check(limiter: Data<RateLimiter>, body: Json<CheckRequest>) -> HttpResponse {
    let CheckRequest {
        customer,
        feature,
        amount,
    } = body.into_inner();
    let Ok(amount) = amount.parse() else {
        return HttpResponse::BadRequest().finish();
    };
    let namespace: Namespace = NAMESPACE.into();
    match limiter.is_rate_limited(&namespace, &context(customer, feature), amount) {
        Ok(checked) if checked.limited => HttpResponse::TooManyRequests().json(()),
        Ok(_) => HttpResponse::Ok().json(serde_json::json!({"allowed": true})),
        Err(_) => HttpResponse::InternalServerError().json(()),
    }
}
