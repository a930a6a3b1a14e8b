//! `/hystrix.stream`: the fields that Hystrix's dashboards and Turbine read, and what they say.

use serde_json::Value;

use crate::support::{Client, Origin, Sidecar, free, ok, within};

/// Opens the stream.
async fn stream(sidecar: &Sidecar) -> Client {
    let mut client = sidecar.observer().await;
    client.send("GET /hystrix.stream?delay=100 HTTP/1.1\r\nHost: observe\r\n\r\n").await;
    let head = within("a head", client.head()).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-type: text/event-stream"), "{head}");
    client
}

/// The next object that fits.
async fn next(client: &mut Client, text: &mut String, fits: impl Fn(&Value) -> bool) -> Value {
    within("an object", async {
        loop {
            while let Some(end) = text.find("\n\n") {
                let event: String = text.drain(..end + 2).collect();
                let Some(data) = event.lines().find_map(|line| line.split_once("data: ")) else { continue };
                let object: Value = serde_json::from_str(data.1).unwrap();
                if fits(&object) {
                    return object;
                }
            }
            text.push_str(&client.chunk().await.expect("the stream goes on"));
        }
    })
    .await
}

/// What `HystrixCommandMetrics` are told as.
const COMMAND: [&str; 42] = [
    "type",
    "name",
    "group",
    "currentTime",
    "isCircuitBreakerOpen",
    "errorPercentage",
    "errorCount",
    "requestCount",
    "rollingCountCollapsedRequests",
    "rollingCountExceptionsThrown",
    "rollingCountFailure",
    "rollingCountFallbackFailure",
    "rollingCountFallbackRejection",
    "rollingCountFallbackSuccess",
    "rollingCountResponsesFromCache",
    "rollingCountSemaphoreRejected",
    "rollingCountShortCircuited",
    "rollingCountSuccess",
    "rollingCountThreadPoolRejected",
    "rollingCountTimeout",
    "currentConcurrentExecutionCount",
    "rollingMaxConcurrentExecutionCount",
    "latencyExecute_mean",
    "latencyExecute",
    "latencyTotal_mean",
    "latencyTotal",
    "propertyValue_circuitBreakerRequestVolumeThreshold",
    "propertyValue_circuitBreakerSleepWindowInMilliseconds",
    "propertyValue_circuitBreakerErrorThresholdPercentage",
    "propertyValue_circuitBreakerForceOpen",
    "propertyValue_circuitBreakerForceClosed",
    "propertyValue_circuitBreakerEnabled",
    "propertyValue_executionIsolationStrategy",
    "propertyValue_executionIsolationThreadTimeoutInMilliseconds",
    "propertyValue_executionIsolationThreadInterruptOnTimeout",
    "propertyValue_executionIsolationThreadPoolKeyOverride",
    "propertyValue_executionIsolationSemaphoreMaxConcurrentRequests",
    "propertyValue_fallbackIsolationSemaphoreMaxConcurrentRequests",
    "propertyValue_metricsRollingStatisticalWindowInMilliseconds",
    "propertyValue_requestCacheEnabled",
    "propertyValue_requestLogEnabled",
    "reportingHosts",
];

const POOL: [&str; 17] = [
    "type",
    "name",
    "currentTime",
    "currentActiveCount",
    "currentCompletedTaskCount",
    "currentCorePoolSize",
    "currentLargestPoolSize",
    "currentMaximumPoolSize",
    "currentPoolSize",
    "currentQueueSize",
    "currentTaskCount",
    "rollingCountThreadsExecuted",
    "rollingMaxActiveThreads",
    "rollingCountCommandRejections",
    "propertyValue_queueSizeRejectionThreshold",
    "propertyValue_metricsRollingStatisticalWindowInMilliseconds",
    "reportingHosts",
];

#[tokio::test]
async fn a_dashboard_finds_every_field() {
    let origin = Origin::answering(ok("x")).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let (mut client, mut text) = (stream(&sidecar).await, String::new());
    let command = next(&mut client, &mut text, |object| object["type"] == "HystrixCommand").await;
    let pool = next(&mut client, &mut text, |object| object["type"] == "HystrixThreadPool").await;
    for (object, fields) in [(&command, &COMMAND[..]), (&pool, &POOL[..])] {
        for field in fields {
            assert!(object.get(field).is_some(), "{field} is missing");
        }
        assert_eq!(object["name"], "a");
    }
    for percentile in ["0", "25", "50", "75", "90", "95", "99", "99.5", "100"] {
        assert!(command["latencyExecute"][percentile].is_number(), "{percentile}");
    }
    assert_eq!(command["propertyValue_circuitBreakerRequestVolumeThreshold"], 20);
    assert_eq!(command["propertyValue_circuitBreakerErrorThresholdPercentage"], 50);
    assert_eq!(pool["currentMaximumPoolSize"], 100);
}

#[tokio::test]
async fn calls_are_counted_in_hystrix_s_terms() {
    let fallback = "fallback: [{respond: {body: x}}], breaker: {min_calls: 2, window: 1h, open_for: 1h}";
    let origin = Origin::answering(ok("x")).await;
    let yaml = format!("services: {{a: {{static: ['{}']}}, b: {{static: ['{}'], {fallback}}}}}", origin.addr(), free());
    let sidecar = Sidecar::start(&yaml).await;
    let (mut client, mut text) = (stream(&sidecar).await, String::new());
    next(&mut client, &mut text, |object| object["name"] == "b").await;
    for _ in 0..3 {
        sidecar.get("a", "/").await;
        assert_eq!(sidecar.get("b", "/").await.text(), "x");
    }
    let a = next(&mut client, &mut text, |object| object["name"] == "a" && object["rollingCountSuccess"] == 3).await;
    assert_eq!((&a["errorPercentage"], &a["isCircuitBreakerOpen"]), (&0.into(), &false.into()));
    let b =
        next(&mut client, &mut text, |object| object["name"] == "b" && object["rollingCountShortCircuited"] == 1).await;
    assert_eq!((&b["rollingCountFailure"], &b["rollingCountFallbackSuccess"]), (&2.into(), &3.into()));
    assert_eq!((&b["errorPercentage"], &b["isCircuitBreakerOpen"]), (&100.into(), &true.into()));
}

#[tokio::test]
async fn there_are_only_so_many_streams() {
    let origin = Origin::answering(ok("x")).await;
    let sidecar = Sidecar::before(&origin, "").await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(stream(&sidecar).await);
    }
    assert_eq!(sidecar.observe("/hystrix.stream").await.status, 503);
    assert_eq!(sidecar.observe("/metrics").await.status, 200);
}
